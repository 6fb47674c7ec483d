//! The ways of a search under a filter, one by one, to compare them with each other and with what
//! the plan chooses. Benches and those who wonder about a plan ask here; searches do not.

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
}
