//! The ways of a search under a filter, one by one, to compare them with each other and with what
//! the plan chooses. Benches and those who wonder about a plan ask here; searches do not.

use embedding::{Aspect, Modality};

use crate::{Collection, EngineError, Plan, Score, SearchRequest, ShardPlan, searching};

/// What one way finds.
#[derive(Debug, Clone, PartialEq)]
pub struct Way {
    /// Ids and scores of each modality, best first.
    pub found: Vec<(String, Score)>,
    /// What was done in each shard.
    pub shards: Vec<ShardPlan>,
}

impl Collection {
    /// What a search finds by this plan in each shard, or by the plan that it would choose. One
    /// shard after the other, without payloads, and nothing is audited.
    ///
    /// # Errors
    /// As for [`Collection::search`].
    pub fn search_by(
        &self,
        request: &SearchRequest,
        plan: Option<Plan>,
    ) -> Result<Way, EngineError> {
        searching::by_plan(self, request, plan)
    }

    /// Rows of the modality in this aspect that searches reach by a graph, dead ones too; all others
    /// are compared exactly.
    pub fn graph_rows(&self, modality: Modality, aspect: Aspect) -> usize {
        let state = self.state.read();
        let shards = state.shards();
        let sealed = shards
            .filter(|(key, _)| (key.modality, key.aspect) == (modality, aspect))
            .map(|(_, shard)| &shard.view.sealed)
            .filter(|sealed| sealed.graph().is_some());
        sealed.map(|sealed| sealed.len()).sum()
    }
}
