//! How alike two models see the same texts.

use embedding::Embedding;
use engine::metrics::scores;
use rayon::prelude::*;

/// The `k` texts that are nearest to each query among `texts`, which the query of the same number is
/// not compared with; the nearest first, equal ones by number.
pub(super) fn neighbors(queries: &[Embedding], texts: &[Embedding], k: usize) -> Vec<Vec<usize>> {
    let nearest = |(own, query): (usize, &Embedding)| {
        let scores = scores(query, texts);
        let mut order: Vec<usize> = (0..texts.len()).filter(|text| *text != own).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        order.truncate(k);
        order
    };
    queries.par_iter().enumerate().map(nearest).collect()
}

/// Share of the neighbors in one list that are in the other, mean over texts.
pub(super) fn overlap(one: &[Vec<usize>], other: &[Vec<usize>]) -> f64 {
    let shares = one.iter().zip(other).map(|(a, b)| {
        let common = a.iter().filter(|text| b.contains(text)).count();
        common as f64 / a.len().max(1) as f64
    });
    shares.sum::<f64>() / one.len().max(1) as f64
}

/// Cosines of all pairs of texts.
pub(super) fn cosines(texts: &[Embedding]) -> Vec<f32> {
    let rows = texts.par_iter().enumerate();
    let pairs = rows.flat_map(|(i, text)| scores(text, &texts[i + 1..]));
    pairs.collect()
}

/// Spearman's rank correlation (1904): the correlation of ranks, where equal numbers share the mean of
/// theirs. 0 where one side has no differences.
pub(super) fn rank_correlation(one: &[f32], other: &[f32]) -> f64 {
    let (a, b) = (ranks(one), ranks(other));
    let middle = f64::midpoint(a.len() as f64, 1.0);
    let moment = |x: &[f64], y: &[f64]| -> f64 {
        x.iter()
            .zip(y)
            .map(|(x, y)| (x - middle) * (y - middle))
            .sum()
    };
    let scale = (moment(&a, &a) * moment(&b, &b)).sqrt();
    if scale > 0.0 {
        moment(&a, &b) / scale
    } else {
        0.0
    }
}

fn ranks(numbers: &[f32]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|a, b| numbers[*a].total_cmp(&numbers[*b]));
    let mut ranks = vec![0.0; numbers.len()];
    let mut before = 0;
    for equal in order.chunk_by(|a, b| numbers[*a].total_cmp(&numbers[*b]).is_eq()) {
        // Ranks count from 1.
        let shared = before as f64 + f64::midpoint(equal.len() as f64, 1.0);
        for i in equal {
            ranks[*i] = shared;
        }
        before += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(degrees: f32) -> Embedding {
        let angle = degrees.to_radians();
        Embedding::normalized(vec![angle.cos(), angle.sin()]).expect("a unit row")
    }

    #[test]
    fn neighbors_are_the_nearest_others_and_their_overlap_is_the_common_share() {
        let texts = [0.0, 10.0, 15.0, 60.0, 100.0].map(at);
        let own = neighbors(&texts, &texts, 2);
        assert_eq!(own, [[1, 2], [2, 0], [1, 0], [4, 2], [3, 2]]);
        // Query 0 moved past text 3.
        let moved = [70.0, 10.0, 15.0, 60.0, 100.0].map(at);
        let found = neighbors(&moved, &texts, 2);
        assert_eq!(found[0], [3, 4]);
        assert!((overlap(&found, &own) - 0.8).abs() < 1e-12);
        assert!((overlap(&own, &own) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn every_pair_of_texts_has_one_cosine() {
        let cosines = cosines(&[0.0, 60.0, 90.0].map(at));
        let expected = [0.5, 0.0, 0.866_025_4];
        assert_eq!(cosines.len(), 3);
        for (cosine, expected) in cosines.iter().zip(expected) {
            assert!((cosine - expected).abs() < 1e-6, "{cosine}");
        }
    }

    #[test]
    fn rank_correlation_sees_order_alone_and_equal_numbers_share_a_rank() {
        let x = [0.1, 0.2, 0.3, 0.9];
        let same = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a}, by hand {b}");
        same(rank_correlation(&x, &[1.0, 10.0, 100.0, 101.0]), 1.0);
        same(rank_correlation(&x, &[9.0, 5.0, 4.0, -1.0]), -1.0);
        // 1 - 6 * (1 + 1) / (4 * 15).
        same(rank_correlation(&x, &[2.0, 1.0, 3.0, 4.0]), 0.8);
        // Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 over the root of 5 * 4.5.
        same(
            rank_correlation(&x, &[0.0, 7.0, 7.0, 8.0]),
            4.5 / 22.5_f64.sqrt(),
        );
        same(rank_correlation(&x, &[3.0; 4]), 0.0);
    }
}
