//! What `/metrics` tells, in the Prometheus text format.

mod figures;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use engine::Collection;
use parking_lot::Mutex;
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder, core::Collector,
};

use self::figures::Figures;
use crate::{reply::ApiError, tower::Class, trace::Trace};

/// Upper bounds of the buckets of every duration, in seconds.
const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Upper bounds of the buckets of the inputs of one pass.
const INPUTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// Upper bounds of the buckets of the tokens or patches of one pass.
const COSTS: &[f64] = &[
    4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0,
];

/// Every metric of one server.
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    waiting: IntGaugeVec,
    searches: IntGauge,
    body_bytes: IntGauge,
    ready: IntGauge,
    stages: HistogramVec,
    figures: Figures,
    pass_seconds: HistogramVec,
    pass_inputs: HistogramVec,
    pass_cost: HistogramVec,
    queue_seconds: HistogramVec,
    /// Held while the figures of collections are set and read.
    gathering: Mutex<()>,
}

/// A step of the work that has no thread of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A picture comes from its address.
    Fetch,
    /// A picture becomes the input of a tower.
    Decode,
    /// The engine searches.
    Search,
    /// The engine keeps a batch.
    Store,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Decode => "decode",
            Self::Search => "search",
            Self::Store => "store",
        }
    }
}

/// The metrics of one tower.
#[derive(Clone)]
pub(crate) struct TowerMetrics {
    seconds: Histogram,
    inputs: Histogram,
    cost: Histogram,
    ask_seconds: Histogram,
    keep_seconds: Histogram,
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let seconds = |name: &str, help: &str, labels: &[&str]| {
            HistogramVec::new(
                HistogramOpts::new(name, help).buckets(SECONDS.to_vec()),
                labels,
            )
        };
        let this = Self {
            registry: Registry::new(),
            requests: IntCounterVec::new(
                Opts::new("diptych_http_requests_total", "Requests answered."),
                &["method", "route", "status"],
            )?,
            request_seconds: seconds(
                "diptych_http_request_seconds",
                "Time until the head of the answer was ready.",
                &["route"],
            )?,
            waiting: IntGaugeVec::new(
                Opts::new(
                    "diptych_queue_inputs",
                    "Inputs that hold room in a tower's queue.",
                ),
                &["tower"],
            )?,
            searches: IntGauge::new("diptych_searches", "Searches that are under way.")?,
            body_bytes: IntGauge::new(
                "diptych_body_bytes",
                "Bytes of request bodies that are held.",
            )?,
            ready: IntGauge::new(
                "diptych_ready",
                "Whether requests can be sent here: 1 or 0.",
            )?,
            stages: seconds(
                "diptych_stage_seconds",
                "Time of one step of the work: fetch, decode, search or store.",
                &["stage"],
            )?,
            figures: Figures::new()?,
            pass_seconds: seconds("diptych_pass_seconds", "Time of a tower pass.", &["tower"])?,
            pass_inputs: HistogramVec::new(
                HistogramOpts::new("diptych_pass_inputs", "Inputs of a tower pass.")
                    .buckets(INPUTS.to_vec()),
                &["tower"],
            )?,
            pass_cost: HistogramVec::new(
                HistogramOpts::new(
                    "diptych_pass_cost",
                    "Tokens of the texts, or patches of the pictures, of a tower pass.",
                )
                .buckets(COSTS.to_vec()),
                &["tower"],
            )?,
            queue_seconds: seconds(
                "diptych_queue_seconds",
                "Time from the arrival at a tower, for pictures decoded, until a pass took the input.",
                &["tower", "class"],
            )?,
            gathering: Mutex::new(()),
        };
        for collector in this.collectors() {
            this.registry.register(collector)?;
        }
        Ok(this)
    }

    fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let mut all: Vec<Box<dyn Collector>> = vec![
            Box::new(self.requests.clone()),
            Box::new(self.request_seconds.clone()),
            Box::new(self.waiting.clone()),
            Box::new(self.searches.clone()),
            Box::new(self.body_bytes.clone()),
            Box::new(self.ready.clone()),
            Box::new(self.stages.clone()),
            Box::new(self.pass_seconds.clone()),
            Box::new(self.pass_inputs.clone()),
            Box::new(self.pass_cost.clone()),
            Box::new(self.queue_seconds.clone()),
        ];
        all.extend(self.figures.collectors());
        all
    }

    /// Does a step of the work, and counts how long that takes, in the trace, too.
    pub(crate) fn time<T>(&self, stage: Stage, work: impl FnOnce() -> T) -> T {
        self.time_since(Instant::now(), stage, work)
    }

    /// The same of a step that began when it began to wait.
    pub(crate) fn time_since<T>(
        &self,
        started: Instant,
        stage: Stage,
        work: impl FnOnce() -> T,
    ) -> T {
        let done = work();
        let took = started.elapsed();
        self.stages
            .with_label_values(&[stage.name()])
            .observe(took.as_secs_f64());
        Trace::current().stage(stage.name(), started, took, &[]);
        done
    }

    /// The metrics of one tower.
    pub(crate) fn tower(&self, name: &str) -> TowerMetrics {
        let waited = |class: Class| {
            let labels = [name, class.name()];
            self.queue_seconds.with_label_values(&labels)
        };
        TowerMetrics {
            seconds: self.pass_seconds.with_label_values(&[name]),
            inputs: self.pass_inputs.with_label_values(&[name]),
            cost: self.pass_cost.with_label_values(&[name]),
            ask_seconds: waited(Class::Ask),
            keep_seconds: waited(Class::Keep),
        }
    }

    /// Counts one answered request. `route` is a pattern, never a path: the number of series is
    /// bounded.
    pub(crate) fn request(&self, method: &str, route: &str, status: u16, took: Duration) {
        self.requests
            .with_label_values(&[method, route, &status.to_string()])
            .inc();
        self.request_seconds
            .with_label_values(&[route])
            .observe(took.as_secs_f64());
    }

    /// Sets how many inputs hold room in the queue of `tower`.
    pub(crate) fn set_waiting(&self, tower: &str, inputs: usize) {
        self.waiting.with_label_values(&[tower]).set(inputs as i64);
    }

    /// Sets how many searches are under way.
    pub(crate) fn set_searches(&self, searches: usize) {
        self.searches.set(searches as i64);
    }

    /// Sets how many bytes of request bodies are held.
    pub(crate) fn set_body_bytes(&self, bytes: usize) {
        self.body_bytes.set(bytes as i64);
    }

    /// Sets whether requests can be sent here.
    pub(crate) fn set_ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }

    /// Everything, as text, with the figures of these collections.
    pub(crate) fn text(&self, collections: &[Arc<Collection>]) -> Result<String, ApiError> {
        let gathered = {
            // Who asks at the same time would otherwise see the numbers reset and not yet set.
            let _alone = self.gathering.lock();
            self.figures.set(collections);
            self.registry.gather()
        };
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&gathered, &mut text)
            .map_err(|source| ApiError::internal("writing the metrics", source))?;
        String::from_utf8(text).map_err(|source| ApiError::internal("writing the metrics", source))
    }
}

impl TowerMetrics {
    /// Counts one pass of so many inputs, and tokens or patches.
    pub(crate) fn pass(&self, inputs: usize, cost: usize, took: Duration) {
        self.inputs.observe(inputs as f64);
        self.cost.observe(cost as f64);
        self.seconds.observe(took.as_secs_f64());
    }

    /// Counts one input that was taken out of the queue.
    pub(crate) fn waited(&self, class: Class, time: Duration) {
        let seconds = match class {
            Class::Ask => &self.ask_seconds,
            Class::Keep => &self.keep_seconds,
        };
        seconds.observe(time.as_secs_f64());
    }

    /// Metrics that nobody reads.
    #[cfg(test)]
    pub(crate) fn unregistered() -> Self {
        let histogram =
            || Histogram::with_opts(HistogramOpts::new("unread", "Unread.")).expect("a valid name");
        Self {
            seconds: histogram(),
            inputs: histogram(),
            cost: histogram(),
            ask_seconds: histogram(),
            keep_seconds: histogram(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// All words that begin as metrics do.
    fn names(text: &str) -> BTreeSet<String> {
        let words =
            text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
        words
            .filter(|word| word.starts_with("diptych_"))
            .map(str::to_owned)
            .collect()
    }

    fn exposed() -> BTreeSet<String> {
        let all = Metrics::new().expect("fine names").collectors();
        let descriptions = all.iter().flat_map(|collector| collector.desc());
        descriptions.map(|desc| desc.fq_name.clone()).collect()
    }

    #[test]
    fn what_is_exposed_is_documented_and_nothing_else() {
        assert_eq!(names(include_str!("../../docs/metrics.md")), exposed());
    }

    #[test]
    fn the_dashboard_shows_all_that_is_exposed_and_nothing_else() {
        let shown = names(include_str!("../../deploy/grafana/diptych.json"));
        let series = ["_bucket", "_sum", "_count"];
        let shown = shown.into_iter().map(|name| {
            let base = series.iter().find_map(|end| name.strip_suffix(end));
            base.map_or(name.clone(), str::to_owned)
        });
        assert_eq!(shown.collect::<BTreeSet<_>>(), exposed());
    }
}
