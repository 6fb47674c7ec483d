//! What `/metrics` tells, in the Prometheus text format.

use std::{sync::Arc, time::Duration};

use engine::Collection;
use parking_lot::Mutex;
use prometheus::{
    Encoder as _, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::{reply::ApiError, tower::Class};

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
    body_bytes: IntGauge,
    items: IntGaugeVec,
    recall: GaugeVec,
    ef_search: IntGaugeVec,
    pass_seconds: HistogramVec,
    pass_inputs: HistogramVec,
    pass_cost: HistogramVec,
    queue_seconds: HistogramVec,
    /// Held while the figures of collections are set and read.
    gathering: Mutex<()>,
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
            body_bytes: IntGauge::new(
                "diptych_body_bytes",
                "Bytes of request bodies that are held.",
            )?,
            items: IntGaugeVec::new(
                Opts::new("diptych_items", "Items of a collection."),
                &["collection", "modality"],
            )?,
            recall: GaugeVec::new(
                Opts::new(
                    "diptych_recall",
                    "Part of the true nearest items that audited searches found.",
                ),
                &["collection", "modality", "aspect", "selectivity"],
            )?,
            ef_search: IntGaugeVec::new(
                Opts::new(
                    "diptych_ef_search",
                    "Candidates that a search keeps which does not say how many.",
                ),
                &["collection", "modality", "aspect"],
            )?,
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
        this.registry.register(Box::new(this.requests.clone()))?;
        this.registry
            .register(Box::new(this.request_seconds.clone()))?;
        this.registry.register(Box::new(this.waiting.clone()))?;
        this.registry.register(Box::new(this.body_bytes.clone()))?;
        this.registry.register(Box::new(this.items.clone()))?;
        this.registry.register(Box::new(this.recall.clone()))?;
        this.registry.register(Box::new(this.ef_search.clone()))?;
        this.registry
            .register(Box::new(this.pass_seconds.clone()))?;
        this.registry.register(Box::new(this.pass_inputs.clone()))?;
        this.registry.register(Box::new(this.pass_cost.clone()))?;
        this.registry
            .register(Box::new(this.queue_seconds.clone()))?;
        Ok(this)
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

    /// Sets how many bytes of request bodies are held.
    pub(crate) fn set_body_bytes(&self, bytes: usize) {
        self.body_bytes.set(bytes as i64);
    }

    /// Everything, as text, with the figures of these collections.
    pub(crate) fn text(&self, collections: &[Arc<Collection>]) -> Result<String, ApiError> {
        let gathered = {
            // Who asks at the same time would otherwise see the numbers reset and not yet set.
            let _alone = self.gathering.lock();
            self.set_figures(collections);
            self.registry.gather()
        };
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&gathered, &mut text)
            .map_err(|source| ApiError::internal("writing the metrics", source))?;
        String::from_utf8(text).map_err(|source| ApiError::internal("writing the metrics", source))
    }

    fn set_figures(&self, collections: &[Arc<Collection>]) {
        self.items.reset();
        self.recall.reset();
        self.ef_search.reset();
        for collection in collections {
            let (name, stats) = (collection.name(), collection.stats());
            for (modality, items) in [("image", stats.images), ("text", stats.texts)] {
                let labels = [name, modality];
                self.items.with_label_values(&labels).set(items as i64);
            }
            for lane in collection.recall().lanes {
                let (modality, aspect) = (lane.modality.to_string(), lane.aspect.as_str());
                let labels = [name, modality.as_str(), aspect];
                let ef_search = lane.ef_search as i64;
                self.ef_search.with_label_values(&labels).set(ef_search);
                for part in lane.by_selectivity {
                    let labels = [name, modality.as_str(), aspect, part.selectivity.name()];
                    self.recall.with_label_values(&labels).set(part.recall);
                }
            }
        }
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
