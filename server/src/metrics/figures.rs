//! Figures of the moment: of collections and of the process. They are set when somebody asks.

use std::sync::Arc;

use engine::Collection;
use prometheus::{GaugeVec, IntGauge, IntGaugeVec, Opts, core::Collector};

/// Figures of the moment.
pub(super) struct Figures {
    items: IntGaugeVec,
    rows: IntGaugeVec,
    damaged: IntGaugeVec,
    sealing: IntGaugeVec,
    recall: GaugeVec,
    audited: IntGaugeVec,
    ef_search: IntGaugeVec,
    resident: IntGauge,
}

impl Figures {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            IntGaugeVec::new(Opts::new(name, help), labels)
        };
        Ok(Self {
            items: gauge(
                "diptych_items",
                "Items of a collection.",
                &["collection", "modality"],
            )?,
            rows: gauge(
                "diptych_rows",
                "Rows of a collection's shards: in sealed indexes, in tails that are scanned, and deleted ones that still lie in either.",
                &["collection", "state"],
            )?,
            damaged: gauge(
                "diptych_damaged_items",
                "Items that were found damaged in the store and are left out of searches.",
                &["collection"],
            )?,
            sealing: gauge(
                "diptych_sealing",
                "Whether an index of the collection is being built: 1 or 0.",
                &["collection"],
            )?,
            recall: GaugeVec::new(
                Opts::new(
                    "diptych_recall",
                    "Part of the true nearest items that audited searches found.",
                ),
                &["collection", "modality", "aspect", "selectivity"],
            )?,
            audited: gauge(
                "diptych_audited_searches",
                "Searches since the start that were repeated exactly (done), or should have been (dropped).",
                &["collection", "outcome"],
            )?,
            ef_search: gauge(
                "diptych_ef_search",
                "Candidates that a search keeps which does not say how many.",
                &["collection", "modality", "aspect"],
            )?,
            resident: IntGauge::new(
                "diptych_resident_bytes",
                "Memory of the process that is in use; 0 where the system does not tell.",
            )?,
        })
    }

    pub(super) fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.items.clone()),
            Box::new(self.rows.clone()),
            Box::new(self.damaged.clone()),
            Box::new(self.sealing.clone()),
            Box::new(self.recall.clone()),
            Box::new(self.audited.clone()),
            Box::new(self.ef_search.clone()),
            Box::new(self.resident.clone()),
        ]
    }

    /// Sets all of them; collections that are gone have none.
    pub(super) fn set(&self, collections: &[Arc<Collection>]) {
        self.resident.set(resident_bytes() as i64);
        for gauge in [&self.items, &self.rows, &self.damaged, &self.sealing] {
            gauge.reset();
        }
        self.audited.reset();
        self.ef_search.reset();
        self.recall.reset();
        for collection in collections {
            self.set_one(collection);
        }
    }

    fn set_one(&self, collection: &Arc<Collection>) {
        let (name, stats, recall) = (collection.name(), collection.stats(), collection.recall());
        let set = |gauge: &IntGaugeVec, labels: &[&str], value: usize| {
            gauge.with_label_values(labels).set(value as i64);
        };
        set(&self.items, &[name, "image"], stats.images);
        set(&self.items, &[name, "text"], stats.texts);
        set(&self.rows, &[name, "sealed"], stats.sealed_rows);
        set(&self.rows, &[name, "tail"], stats.tail_rows);
        set(&self.rows, &[name, "deleted"], stats.deleted_rows);
        set(&self.damaged, &[name], stats.damaged_items);
        set(&self.sealing, &[name], usize::from(stats.sealing));
        set(
            &self.audited,
            &[name, "done"],
            recall.audited_queries as usize,
        );
        set(
            &self.audited,
            &[name, "dropped"],
            recall.dropped_queries as usize,
        );
        for lane in recall.lanes {
            let (modality, aspect) = (lane.modality.to_string(), lane.aspect.as_str());
            let labels = [name, modality.as_str(), aspect];
            set(&self.ef_search, &labels, lane.ef_search);
            for part in lane.by_selectivity {
                let labels = [name, modality.as_str(), aspect, part.selectivity.name()];
                self.recall.with_label_values(&labels).set(part.recall);
            }
        }
    }
}

/// Memory of this process in use.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}
