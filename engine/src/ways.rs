//! The ways of a search under a filter, one by one, to compare them with each other and with what
//! the plan chooses. Benches and those who wonder about a plan ask here; searches do not.

use crate::{
    Collection, EngineError, Filter, Plan, Score, SearchRequest, ShardPlan,
    filter::plan::Estimate,
    searching::{best, params, views, wanted},
    shard::{Found, Wanted},
};

/// What one way finds.
#[derive(Debug, Clone, PartialEq)]
pub struct Way {
    /// Ids and scores, best first.
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
        let everything = Filter::default();
        let filter = self.check_filter(request.filter.as_ref().unwrap_or(&everything))?;
        let views = views(self, request)?;
        let matching = self.matching(&filter)?;
        let (mut found, mut shards) = (Vec::new(), Vec::new());
        for (key, view) in &views {
            let wanted = Wanted {
                query: &request.query.embedding,
                k: wanted(request),
                params: params(self, request, key),
                exact: request.exact,
                matching: &matching,
                explain: false,
            };
            let answer = match plan {
                None => view.search_matching(&wanted, key.to_string()),
                Some(plan) => {
                    let by = |estimate: &Estimate| estimate.by(plan);
                    view.search_matching_by(&wanted, key.to_string(), by)
                }
            };
            found.extend(answer.found);
            shards.push(answer.plan);
        }
        let best = best(found, request).into_iter();
        Ok(Way {
            found: best.map(|Found { score, id }| (id, score)).collect(),
            shards,
        })
    }
}
