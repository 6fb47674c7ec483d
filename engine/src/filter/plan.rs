//! Which way to search among the rows that a filter leaves: the one whose estimated cost is least.
//!
//! The costs are nanoseconds on one core, fitted to what `cargo run --release -p engine --example
//! filter_costs` prints for rows of 64 and 512 numbers. Only their ratios matter. The bench `filter`
//! compares what is chosen with all other ways, on 100,000 rows of 512: it took at most 1.14 times
//! as long as the best at any share of matching rows from one in a thousand to a half. A walk that
//! asks of each node gives up when a scan would have been faster, and one that finds too few is
//! followed by the scan.

use serde::Serialize;

use crate::index::OFTEN_LIVE;

/// A row that is compared by its codes: the part that does not depend on its length, and each of
/// its numbers.
const COMPARE_NS: f64 = 6.8;
const COMPARE_NUMBER_NS: f64 = 0.028;
/// More for a row that is not next to the one compared before it, though its codes were sent for.
const JUMP_NS: f64 = 2.0;
const JUMP_NUMBER_NS: f64 = 0.01;
/// Finding the row of an ordinal.
const LOOKUP_NS: f64 = 15.0;
/// What a walk does besides, for each node that it compares.
const VISIT_NS: f64 = 1.0;
/// The same where it asks of each node whether it matches.
const ASK_NS: f64 = 40.0;
/// Nodes that are compared for each candidate that is kept, where all rows match.
const VISITS_PER_CANDIDATE: f64 = 25.0;
/// Part of all rows from which the others hardly count.
const NEARLY_ALL: f64 = 0.95;
/// So many times as many candidates are kept by a walk that keeps all nodes.
const OFTEN_WIDENED: f64 = 1.25;

/// A way to search the sealed rows of a shard. (The tail is always scanned.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Plan {
    /// Compare with exactly the rows that match, found by their ordinals.
    ScanMatching,
    /// Walk the graph through all nodes, keeping those that match.
    Graph,
    /// Compare with all rows in order, and keep the nearest of those that match.
    ScanAll,
}

/// What was done in one shard.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShardPlan {
    /// Which shard: modality, part, aspect.
    pub shard: String,
    /// The way that was chosen.
    pub plan: Plan,
    /// Whether the graph found too few or took too long, so that the matching rows were scanned.
    pub fell_back: bool,
    /// Sealed rows.
    pub sealed_rows: usize,
    /// Rows of the tail.
    pub tail_rows: usize,
    /// Sealed rows that match, as the choice was made by.
    pub estimated_matching: usize,
    /// Live rows that match, sealed and tail.
    pub matching: usize,
    /// Rows that the query was compared with.
    pub distances: usize,
    /// Candidates that the graph kept; 0 where it was not used.
    pub ef_search: usize,
}

/// What a choice depends on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Estimate {
    /// Sealed rows.
    pub(crate) rows: usize,
    /// How many of them match, about.
    pub(crate) matching: usize,
    /// Numbers of a row.
    pub(crate) dim: usize,
    /// Numbers of each node that a walk compares: fewer, where it has short codes.
    pub(crate) walked: usize,
    /// Candidates that the graph would keep without a filter; `None` where there is no graph, or
    /// the answer must be exact.
    pub(crate) ef: Option<usize>,
}

/// The plan, and the numbers it needs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Chosen {
    pub(crate) plan: Plan,
    /// The cheaper scan: the plan itself, or what follows a walk that finds too few.
    pub(crate) scan: Plan,
    /// Candidates that match and that the graph keeps.
    pub(crate) ef: usize,
    /// Nodes after which the graph gives up, because a scan would have been faster.
    pub(crate) most_nodes: usize,
}

impl Estimate {
    /// The cheapest plan.
    pub(crate) fn choose(&self) -> Chosen {
        let (matching, all) = (self.scan_matching_ns(), self.scan_all_ns());
        let (scan, ns) = if matching <= all {
            (Plan::ScanMatching, matching)
        } else {
            (Plan::ScanAll, all)
        };
        match self.ef {
            Some(ef) if self.graph_ns(ef) < ns => Chosen {
                plan: Plan::Graph,
                scan,
                ef: self.widened(ef),
                most_nodes: (ns / self.visit_ns()) as usize,
            },
            _ => Chosen {
                plan: scan,
                scan,
                ef: 0,
                most_nodes: 0,
            },
        }
    }

    /// This plan, whatever it costs; without a graph a scan in its place.
    pub(crate) fn by(&self, plan: Plan) -> Chosen {
        match (plan, self.ef) {
            (Plan::Graph, Some(ef)) => Chosen {
                plan,
                scan: Plan::ScanMatching,
                ef: self.widened(ef),
                most_nodes: usize::MAX,
            },
            (Plan::Graph, None) => Self { ef: None, ..*self }.choose(),
            _ => Chosen {
                plan,
                scan: plan,
                ef: 0,
                most_nodes: 0,
            },
        }
    }

    /// Part of all rows that match, never 0.
    fn part(&self) -> f64 {
        self.matching.max(1) as f64 / self.rows.max(1) as f64
    }

    fn visit_ns(&self) -> f64 {
        let asks = if self.often_match() { 0.0 } else { ASK_NS };
        VISIT_NS + asks + jump_ns(self.walked) + compare_ns(self.walked)
    }

    fn scan_matching_ns(&self) -> f64 {
        self.matching as f64 * (LOOKUP_NS + jump_ns(self.dim) + compare_ns(self.dim))
    }

    /// Few rows are near enough to be asked whether they match.
    fn scan_all_ns(&self) -> f64 {
        self.rows as f64 * compare_ns(self.dim)
    }

    /// To keep so many candidates that match, the walk must come by all the others among them. What
    /// it kept by short codes is compared again by whole ones.
    fn graph_ns(&self, ef: usize) -> f64 {
        let again = if self.walked < self.dim {
            jump_ns(self.dim) + compare_ns(self.dim)
        } else {
            0.0
        };
        let kept = self.widened(ef) as f64 / self.part();
        kept * (VISITS_PER_CANDIDATE * self.visit_ns() + again)
    }

    /// Whether the walk keeps nodes that do not match, too, and leaves them out only at its end.
    fn often_match(&self) -> bool {
        self.matching * OFTEN_LIVE >= self.rows
    }

    /// A walk that asks each node takes in only those that match. The fewer these are, the fewer
    /// links lead from one to the next, so more candidates are kept: half as many again for each
    /// halving, up to four times as many. One that keeps all nodes, until so many candidates match,
    /// loses nothing; a few more of them bring it nearer to the recall that scans have.
    pub(crate) fn widened(&self, ef: usize) -> usize {
        let times = if self.part() >= NEARLY_ALL {
            1.0
        } else if self.often_match() {
            OFTEN_WIDENED
        } else {
            (1.0 - 0.5 * self.part().log2()).clamp(OFTEN_WIDENED, 4.0)
        };
        (ef as f64 * times).ceil() as usize
    }
}

fn compare_ns(numbers: usize) -> f64 {
    COMPARE_NS + COMPARE_NUMBER_NS * numbers as f64
}

fn jump_ns(numbers: usize) -> f64 {
    JUMP_NS + JUMP_NUMBER_NS * numbers as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(rows: usize, matching: usize, ef: Option<usize>) -> Plan {
        let estimate = Estimate {
            rows,
            matching,
            dim: 512,
            walked: 512,
            ef,
        };
        estimate.choose().plan
    }

    #[test]
    fn few_rows_are_scanned_many_are_walked_to_and_nearly_all_of_a_few_are_gone_through() {
        let million = 1_000_000;
        assert_eq!(plan(million, 1000, Some(64)), Plan::ScanMatching);
        assert_eq!(plan(million, 500_000, Some(64)), Plan::Graph);
        assert_eq!(plan(million, million, Some(64)), Plan::Graph);
        assert_eq!(plan(million, 900_000, None), Plan::ScanAll);
        assert_eq!(plan(million, 1000, None), Plan::ScanMatching);
        assert_eq!(plan(1000, 900, Some(64)), Plan::ScanAll);
        assert_eq!(plan(0, 0, None), Plan::ScanMatching);
    }

    #[test]
    fn it_is_the_cost_that_decides_not_the_number_of_rows() {
        // As many rows match, but the graph must pass by more others to meet them.
        assert_eq!(plan(100_000, 20_000, Some(64)), Plan::Graph);
        assert_eq!(plan(10_000_000, 20_000, Some(64)), Plan::ScanMatching);
        // The same filter, but more candidates are asked for.
        assert_eq!(plan(100_000, 20_000, Some(2000)), Plan::ScanMatching);
        assert_eq!(plan(100_000, 80_000, Some(1000)), Plan::Graph);
        assert_eq!(plan(100_000, 80_000, Some(5000)), Plan::ScanAll);
    }

    #[test]
    fn candidates_are_widened_once_and_by_more_where_fewer_match() {
        let widened = |matching| {
            let estimate = Estimate {
                rows: 100_000,
                matching,
                dim: 64,
                walked: 64,
                ef: Some(64),
            };
            estimate.widened(64)
        };
        // The walk itself keeps as many more as do not match: half of all is no reason to double.
        let all = [100_000, 50_000, 10_000, 6250, 6249, 100, 0].map(widened);
        assert_eq!(all, [64, 80, 80, 80, 193, 256, 256]);
    }

    #[test]
    fn a_plan_that_is_told_is_taken_and_a_walk_without_a_graph_is_a_scan() {
        let estimate = |ef| Estimate {
            rows: 10_000,
            matching: 10,
            dim: 64,
            walked: 64,
            ef,
        };
        for told in [Plan::ScanMatching, Plan::ScanAll, Plan::Graph] {
            assert_eq!(estimate(Some(64)).by(told).plan, told);
        }
        assert_eq!(estimate(None).by(Plan::Graph).plan, Plan::ScanMatching);
    }

    #[test]
    fn walks_over_short_codes_are_chosen_where_those_over_whole_ones_would_take_too_long() {
        let plan = |matching, walked| {
            let estimate = Estimate {
                rows: 100_000,
                matching,
                dim: 512,
                walked,
                ef: Some(64),
            };
            estimate.choose().plan
        };
        // Measured by the bench `filter`: .36 ms in place of .74 for a tenth of the rows, but 3.0 in
        // place of .29 for a twentieth.
        assert_eq!(plan(10_000, 64), Plan::Graph);
        assert_eq!(plan(10_000, 512), Plan::ScanMatching);
        assert_eq!(plan(5_000, 64), Plan::ScanMatching);
    }
}
