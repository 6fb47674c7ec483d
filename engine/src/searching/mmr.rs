//! Maximal marginal relevance (Carbonell and Goldstein 1998).

/// Most items that can be chosen: all pairs of them are compared.
pub(super) const MAX_CHOSEN: usize = 1024;

/// Items to choose among for so many that are wanted: `4 * k`, 64 to 256, at least `k`.
pub(super) fn pool(k: usize) -> usize {
    k.saturating_mul(4).clamp(64, 256).max(k)
}

/// Chooses `k` of the items: each time the one with the greatest
/// `(1 - diversity) * relevance - diversity * likeness`, where the likeness is that to the most
/// alike of those chosen before. `alike` gives the cosine of two items, or `None` where two items
/// have nothing to compare. Relevance and likeness are scaled to 0 to 1 over all items.
pub(super) fn choose(
    relevance: &[f32],
    alike: &dyn Fn(usize, usize) -> Option<f32>,
    diversity: f32,
    k: usize,
) -> Vec<usize> {
    let n = relevance.len();
    let relevance = scaled(relevance);
    let pairs: Vec<f32> = (0..n)
        .flat_map(|i| (0..i).filter_map(move |j| alike(i, j)))
        .collect();
    let (low, width) = range(&pairs);
    let mut most_alike = vec![0.0_f32; n];
    let mut left: Vec<usize> = (0..n).collect();
    let mut chosen = Vec::with_capacity(k.min(n));
    while chosen.len() < k {
        let worth = |i: usize| (1.0 - diversity) * relevance[i] - diversity * most_alike[i];
        // The first of equals: the order of the items is the order of their relevance.
        let best = left
            .iter()
            .enumerate()
            .max_by(|(a, i), (b, j)| worth(**i).total_cmp(&worth(**j)).then(b.cmp(a)));
        let Some((at, _)) = best else { break };
        let taken = left.remove(at);
        for i in &left {
            if let Some(cosine) = alike(*i, taken) {
                most_alike[*i] = most_alike[*i].max((cosine - low) / width);
            }
        }
        chosen.push(taken);
    }
    chosen
}

fn scaled(values: &[f32]) -> Vec<f32> {
    let (low, width) = range(values);
    values.iter().map(|value| (value - low) / width).collect()
}

/// The least value, and how far above it the greatest is; 1 where there is nothing between them.
fn range(values: &[f32]) -> (f32, f32) {
    let low = values.iter().copied().min_by(f32::total_cmp);
    let high = values.iter().copied().max_by(f32::total_cmp);
    match low.zip(high) {
        Some((low, high)) if high > low => (low, high - low),
        Some((low, _)) => (low, 1.0),
        None => (0.0, 1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Items 0 and 1 are the same, 2 is unlike both and a little less relevant.
    fn chosen(diversity: f32) -> Vec<usize> {
        let alike = |i: usize, j: usize| Some(if i.max(j) == 2 { 0.1 } else { 0.9 });
        choose(&[0.9, 0.89, 0.8], &alike, diversity, 3)
    }

    #[test]
    fn more_diversity_puts_what_is_unlike_before_what_is_a_little_better() {
        assert_eq!(chosen(0.01), [0, 1, 2]);
        assert_eq!(chosen(0.6), [0, 2, 1]);
        assert_eq!(
            chosen(1.0)[0],
            0,
            "the best comes first whatever the diversity"
        );
    }

    #[test]
    fn equal_items_keep_their_order_and_none_is_invented() {
        let same = |_, _| Some(0.5);
        assert_eq!(choose(&[0.3; 4], &same, 0.5, 9), [0, 1, 2, 3]);
        assert!(choose(&[], &same, 0.5, 3).is_empty());
        assert_eq!(choose(&[0.3], &|_, _| None, 0.5, 3), [0]);
    }
}
