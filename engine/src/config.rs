//! Settings of the engine.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use crate::EngineError;

/// Most hash shards per modality; more would only be slower.
pub(crate) const MAX_SHARDS: usize = 64;
/// Most candidates that a search may keep.
const MOST_EF: usize = 65_536;

/// Settings of the engine. Those of the index apply to indexes built from now on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    /// Fewest rows in a shard's tail that start a background seal; a large shard waits until its
    /// tail is a quarter of its sealed rows. Scanning this many rows takes less time than the text
    /// tower does.
    pub seal_rows: usize,
    /// Part of all cores that building indexes in the background may take; it never takes more than
    /// one core, and lets everything else go first.
    pub seal_share: f64,
    /// Rows from which a sealed shard gets a graph; below, the exact scan is as fast.
    pub graph_rows: usize,
    /// Parts that the items of each modality of a new collection are split into by id, searched in
    /// parallel; `None` for one or two, depending on the machine. A collection remembers its own.
    pub shards: Option<NonZeroUsize>,
    /// The graph.
    pub hnsw: HnswParams,
    /// Recall that approximate searches are kept above: where audited ones are surely below, a
    /// collection keeps more candidates, from `hnsw.ef_search` up to `most_ef_search`. The default
    /// is what a graph with the other defaults is tested to reach.
    pub target_recall: f64,
    /// Candidates that a collection comes to keep by itself at most; below `hnsw.ef_search` it
    /// keeps that number. At the default a walk compares with some ten thousand rows.
    pub most_ef_search: usize,
    /// Part of the approximate searches that are repeated exactly in the background, which takes
    /// at most a twentieth of one core; 0 for none.
    pub audit_share: f64,
    /// Memory that links of sealed indexes may take, and the codes that walks compare: 200 to 700
    /// bytes for each row of 512 numbers, the less the fewer directions the rows spread along.
    /// `None` for no limit. Indexes beyond it stay in their mapped files, where walks take longer;
    /// the rows themselves, and whole codes where walks compare short ones, always do.
    pub index_memory_bytes: Option<u64>,
    /// Memory that the store may use as a cache.
    pub store_cache_bytes: u64,
}

/// Settings of the HNSW graph (Malkov and Yashunin 2018), named as in the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HnswParams {
    /// Links per node in the upper layers; twice as many in the lowest.
    pub m: usize,
    /// Candidates kept while a node is linked.
    pub ef_construction: usize,
    /// Candidates kept while searching, unless the request says otherwise.
    pub ef_search: usize,
    /// What links the nodes.
    pub builder: GraphBuilder,
}

/// What links the nodes of a graph. Graphs of both are searched in the same way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GraphBuilder {
    /// Our own, on codes.
    #[default]
    Own,
    /// The crate `hnsw_rs`, with our distance on codes: slower, to compare with.
    HnswRs,
}

impl Default for HnswParams {
    fn default() -> Self {
        Self {
            m: 16,
            ef_construction: 200,
            ef_search: 64,
            builder: GraphBuilder::Own,
        }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            seal_rows: 4096,
            seal_share: 0.5,
            graph_rows: 4096,
            shards: None,
            hnsw: HnswParams::default(),
            target_recall: 0.95,
            most_ef_search: 512,
            audit_share: 0.01,
            index_memory_bytes: None,
            store_cache_bytes: 64 << 20,
        }
    }
}

impl EngineConfig {
    /// Checks every number.
    ///
    /// # Errors
    /// When a number is out of its range, with the range.
    pub fn validate(&self) -> Result<(), EngineError> {
        let HnswParams {
            m,
            ef_construction,
            ef_search,
            builder: _,
        } = self.hnsw;
        let checks = [
            (
                "seal_rows",
                self.seal_rows as f64,
                self.seal_rows >= 1,
                "at least 1",
            ),
            // With less, a seal could take days.
            (
                "seal_share",
                self.seal_share,
                (0.01..=1.0).contains(&self.seal_share),
                "0.01 to 1",
            ),
            // hnsw_rs ends the process above 256.
            ("hnsw.m", m as f64, (2..=128).contains(&m), "2 to 128"),
            (
                "hnsw.ef_construction",
                ef_construction as f64,
                (m..=4096).contains(&ef_construction),
                { "hnsw.m to 4096" },
            ),
            (
                "hnsw.ef_search",
                ef_search as f64,
                (1..=MOST_EF).contains(&ef_search),
                "1 to 65536",
            ),
            (
                "most_ef_search",
                self.most_ef_search as f64,
                (1..=MOST_EF).contains(&self.most_ef_search),
                "1 to 65536",
            ),
            // Not a number is in no range.
            (
                "target_recall",
                self.target_recall,
                self.target_recall > 0.0 && self.target_recall <= 1.0,
                "more than 0, at most 1",
            ),
            (
                "audit_share",
                self.audit_share,
                (0.0..=1.0).contains(&self.audit_share),
                "0 to 1",
            ),
            (
                "shards",
                self.new_shards() as f64,
                self.new_shards() <= MAX_SHARDS,
                "1 to 64",
            ),
        ];
        for (key, value, good, expected) in checks {
            if !good {
                return Err(EngineError::BadConfig {
                    key,
                    value,
                    expected,
                });
            }
        }
        Ok(())
    }

    /// Hash shards per modality of a new collection.
    pub(crate) fn new_shards(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.shards.map_or(cores.min(2), NonZeroUsize::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_would_end_the_process_are_refused() {
        assert!(EngineConfig::default().validate().is_ok());
        for m in [0, 1, 129, 300] {
            let hnsw = HnswParams {
                m,
                ef_construction: 400,
                ..HnswParams::default()
            };
            let refused = EngineConfig {
                hnsw,
                ..EngineConfig::default()
            }
            .validate();
            assert!(matches!(
                refused,
                Err(EngineError::BadConfig { key: "hnsw.m", .. })
            ));
        }
    }

    #[test]
    fn shares_and_recalls_out_of_their_range_are_refused_by_name() {
        let refused = |config: EngineConfig| match config.validate() {
            Err(error) => error.to_string(),
            Ok(()) => panic!("{config:?} was taken"),
        };
        let base = EngineConfig::default();
        for (audit_share, said) in [(-0.1, "-0.1"), (1.5, "1.5"), (f64::NAN, "NaN")] {
            let config = EngineConfig {
                audit_share,
                ..base.clone()
            };
            let expected = format!("audit_share is {said}, expected 0 to 1");
            assert_eq!(refused(config), expected);
        }
        for target_recall in [0.0, 1.01, f64::NAN] {
            let config = EngineConfig {
                target_recall,
                ..base.clone()
            };
            let error = refused(config);
            assert!(error.starts_with("target_recall is "), "{error}");
        }
        for seal_share in [0.0, 1.5, f64::NAN] {
            let config = EngineConfig {
                seal_share,
                ..base.clone()
            };
            let error = refused(config);
            assert!(error.starts_with("seal_share is "), "{error}");
        }
        let config = EngineConfig {
            most_ef_search: 0,
            ..base
        };
        assert_eq!(refused(config), "most_ef_search is 0, expected 1 to 65536");
    }
}
