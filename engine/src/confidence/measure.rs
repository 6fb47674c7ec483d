//! Not committed: measures on real pairs.
use super::{
    fair::{self, LEVEL_ROWS, Level},
    judge::{Asked, Candidate, Judge, views},
    sample::hash_of,
};
use crate::{
    index::SearchParams,
    metrics::{calibration_error, roc_auc},
    shard::Found,
    *,
};
use embedding::{Aspect, Embedding, Encoder, HashEncoder, Modality};
use std::{sync::Arc, time::Instant};

fn read(path: &str) -> Vec<Embedding> {
    let bytes = std::fs::read(path).expect("reads");
    let header = 10 + u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    let numbers: Vec<f32> = bytes[header..]
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    numbers
        .chunks_exact(512)
        .map(|row| Embedding::normalized(row.to_vec()).expect("unit"))
        .collect()
}
fn id(m: Modality, n: usize) -> ItemId {
    ItemId::new(format!("{m}-{n}")).expect("id")
}

#[test]
fn measure() {
    let Ok(dir) = std::env::var("PAIRS_DIR") else {
        return;
    };
    let rows = [
        read(&format!("{dir}/text_embeddings.npy")),
        read(&format!("{dir}/image_embeddings.npy")),
    ];
    let of = |m: Modality| &rows[usize::from(m == Modality::Image)];
    let n = rows[0].len();
    let spaces = Encoder::<&str>::spaces(&HashEncoder::new(Modality::Text, 512)).clone();
    for kind in ["default", "self", "pairs"] {
        let engine = Engine::in_memory(EngineConfig::default());
        let c = engine.create("c", &spaces).expect("creates");
        let item = |m: Modality, i: usize| Item::new(id(m, i), m, of(m)[i].clone());
        let start = Instant::now();
        c.confidence
            .fitting
            .store(true, std::sync::atomic::Ordering::SeqCst);
        for m in Modality::ALL {
            c.upsert((0..n).map(|i| item(m, i)).collect())
                .expect("writes");
        }
        println!("{kind}: upsert {:?}", start.elapsed());
        let start = Instant::now();
        if kind == "self" {
            println!("{:#?}", c.calibrate(None).expect("fits"));
        }
        if kind == "pairs" {
            let mut pairs = vec![];
            for i in (0..n).step_by(2) {
                pairs.push((id(Modality::Text, i), id(Modality::Image, i)));
                pairs.push((id(Modality::Image, i), id(Modality::Text, i)));
            }
            println!("{:#?}", c.calibrate(Some(&pairs)).expect("fits"));
        }
        println!("calibrate {:?}", start.elapsed());
        for from in Modality::ALL {
            let to = super::calibration::other(from);
            // Rows that the self fit has seen.
            let mut hashes: Vec<u64> = (0..n).map(|i| hash_of(id(from, i).as_str())).collect();
            let all = hashes.clone();
            hashes.sort_unstable();
            let test: Vec<usize> = (0..n)
                .filter(|i| i % 2 == 1 && all[*i] > hashes[255])
                .collect();
            let (mut first, mut most, mut cos, mut pred) =
                ([vec![], vec![]], [vec![], vec![]], [vec![], vec![]], vec![]);
            let mut all_pred = vec![];
            let (mut t_judge, mut t_conf) = (0.0, 0.0);
            for i in &test {
                c.delete(&[id(from, *i)]).expect("deletes");
                let query = &of(from)[*i];
                for present in [true, false] {
                    if !present {
                        c.delete(&[id(to, *i)]).expect("deletes");
                    }
                    let hits = nearest(&c, query, to, 10);
                    let items: Vec<Item> = hits
                        .iter()
                        .map(|h| {
                            c.get(&ItemId::new(h.id.clone()).expect("id"))
                                .expect("reads")
                                .expect("there")
                        })
                        .collect();
                    let asked = Asked {
                        embedding: query,
                        aspect: Aspect::Shared,
                        modality: None,
                    };
                    drop(Judge::new(&c, asked));
                    let start = Instant::now();
                    let judge = Judge::new(&c, asked);
                    t_judge += start.elapsed().as_secs_f64();
                    assert_eq!(judge.from(), from);
                    let cands: Vec<Candidate<'_>> = hits
                        .iter()
                        .zip(&items)
                        .map(|(h, i)| Candidate {
                            score: h.score,
                            embedding: Some(&i.shared),
                        })
                        .collect();
                    let start = Instant::now();
                    let sure: Vec<f64> = judge
                        .confidences(to, &cands)
                        .into_iter()
                        .map(|s| f64::from(s.expect("sure")))
                        .collect();
                    t_conf += start.elapsed().as_secs_f64();
                    let p = usize::from(present);
                    first[p].push(sure[0]);
                    most[p].push(sure.iter().copied().fold(0.0, f64::max));
                    cos[p].push(f64::from(hits[0].score.0));
                    let truth = id(to, *i);
                    pred.push((sure[0], hits[0].id == truth.as_str()));
                    all_pred.extend(
                        sure.iter()
                            .zip(&hits)
                            .map(|(s, h)| (*s, h.id == truth.as_str())),
                    );
                }
                c.upsert(vec![item(from, *i), item(to, *i)])
                    .expect("writes");
            }
            let q = 2.0 * test.len() as f64;
            println!(
                "{kind} {from} ({} queries): AUC first {:.3} surest of ten {:.3} cosine {:.3}; ECE first {:.3} all ten {:.3}; judge {:.0} us, ten confidences {:.0} us",
                test.len(),
                roc_auc(&first[1], &first[0]),
                roc_auc(&most[1], &most[0]),
                roc_auc(&cos[1], &cos[0]),
                calibration_error(&pred),
                calibration_error(&all_pred),
                1e6 * t_judge / q,
                1e6 * t_conf / q
            );
        }
        if kind != "default" {
            continue;
        }
        for from in Modality::ALL {
            let to = super::calibration::other(from);
            let (mut fair_in, mut raw_in) = (0, 0);
            for i in 0..n {
                let query = &of(from)[i];
                let judge = Judge::new(
                    &c,
                    Asked {
                        embedding: query,
                        aspect: Aspect::Shared,
                        modality: Some(from),
                    },
                );
                let lists: Vec<Vec<Found<String>>> = Modality::ALL
                    .into_iter()
                    .map(|m| nearest(&c, query, m, LEVEL_ROWS))
                    .collect();
                let mut raw: Vec<&Found<String>> = lists.iter().flatten().collect();
                raw.sort_by(|a, b| a.rank(b));
                let truth = id(to, i);
                raw_in += usize::from(raw.iter().take(10).any(|f| f.id == truth.as_str()));
                let joined = fair::join(
                    lists
                        .into_iter()
                        .zip(Modality::ALL)
                        .map(|(f, m)| {
                            (
                                Level::new(&f, judge.spread(m)),
                                f.into_iter().map(|f| (f, ())).collect(),
                            )
                        })
                        .collect(),
                );
                fair_in += usize::from(joined.iter().take(10).any(|f| f.0.id == truth.as_str()));
            }
            println!(
                "mixed {from}: partner in first ten: raw {:.3} fair {:.3}",
                raw_in as f64 / n as f64,
                fair_in as f64 / n as f64
            );
        }
    }
}

fn nearest(c: &Arc<Collection>, query: &Embedding, to: Modality, k: usize) -> Vec<Found<String>> {
    let k = std::num::NonZeroUsize::new(k).expect("k");
    let mut found: Vec<Found<String>> = views(c, to)
        .iter()
        .flat_map(|v| v.search(query, k, SearchParams { ef_search: 64 }, true))
        .collect();
    found.sort_unstable_by(Found::rank);
    found.truncate(k.get());
    found
}
