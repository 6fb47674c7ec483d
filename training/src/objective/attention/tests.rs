use candle_core::{DType, Device, Var};

use super::*;
use crate::objective::gradients::{check, rows, scalar};

/// Attention probabilities `[b, heads, q, k]` without pattern.
fn maps(b: usize, heads: usize, q: usize, k: usize, phase: f64) -> Tensor {
    let logits = rows(b * heads * q, k, phase);
    softmax(&(logits * 2.0).expect("logits"), 1)
        .and_then(|p| p.reshape((b, heads, q, k)))
        .expect("maps")
}

/// Every head looks from each of two queries at one key that no other head looks at.
fn orthogonal(heads: usize) -> Tensor {
    let mut values = vec![0.0; heads * 2 * heads];
    for head in 0..heads {
        for query in 0..2 {
            values[(head * 2 + query) * heads + head] = 1.0;
        }
    }
    Tensor::from_vec(values, (1, heads, 2, heads), &Device::Cpu).expect("maps")
}

fn of(teacher: &Tensor, student: &Tensor, variant: Variant<'_>, sharpness: f64) -> f64 {
    scalar(&amad(teacher, student, variant, sharpness).expect("a loss"))
}

fn assert_near(value: f64, expected: f64) {
    let gap = (value - expected).abs();
    assert!(gap < 1e-6, "{value}, expected {expected}");
}

#[test]
fn a_perfect_copy_has_the_golden_floor_of_its_number_of_heads() {
    for (heads, floor) in [(2, 0.289_318), (4, 1.467_947)] {
        let maps = orthogonal(heads);
        assert_near(of(&maps, &maps, Variant::Distance, 1.0), floor);
        // Each head counts e among the e + (heads - 1) of its mixture.
        let share = 1.0_f64.exp() / (1.0_f64.exp() + heads as f64 - 1.0);
        let by_hand = -(heads as f64) * share.ln();
        assert_near(of(&maps, &maps, Variant::Divergence, 1.0), by_hand);
        assert!(of(&maps, &maps, Variant::Divergence, 0.05) < 1e-6);
    }
}

#[test]
fn a_single_head_that_is_copied_costs_nothing() {
    let maps = maps(2, 1, 3, 4, 0.1);
    for variant in [
        Variant::Distance,
        Variant::Divergence,
        Variant::RowDivergence,
    ] {
        assert_near(of(&maps, &maps, variant, 1.0), 0.0);
    }
}

#[test]
fn a_divergence_is_the_formula_by_hand() {
    let (teacher, student) = (maps(1, 3, 2, 4, 0.1), maps(1, 2, 2, 4, 0.7));
    let flat = |maps: &Tensor| -> Vec<Vec<f64>> {
        let maps = maps.flatten_from(2).and_then(|m| m.squeeze(0));
        maps.and_then(|m| m.to_vec2()).expect("numbers")
    };
    let (t, s) = (flat(&teacher), flat(&student));
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    for sharpness in [1.0, 0.1] {
        let mut expected = 0.0;
        for t in &t {
            let weight = |s: &Vec<f64>| {
                let cosine = dot(t, s) / (dot(t, t) * dot(s, s)).sqrt();
                (cosine / sharpness).exp()
            };
            let sum: f64 = s.iter().map(weight).sum();
            for (n, p) in t.iter().enumerate() {
                let mixture: f64 = s.iter().map(|s| weight(s) / sum * s[n]).sum();
                // Two rows share the mass of a map.
                expected += p / 2.0 * (p / mixture).ln();
            }
        }
        let value = of(&teacher, &student, Variant::Divergence, sharpness);
        assert_near(value, expected);
        let rows = of(&teacher, &student, Variant::RowDivergence, sharpness);
        assert_near(rows, 2.0 * expected);
    }
}

#[test]
fn a_projection_by_the_identity_changes_nothing_and_another_one_does() -> Result<()> {
    let (teacher, student) = (maps(2, 3, 2, 3, 0.1), maps(2, 2, 2, 3, 0.7));
    let plain = of(&teacher, &student, Variant::Divergence, 1.0);
    let weight = Tensor::eye(6, DType::F64, &Device::Cpu)?;
    let bias = Tensor::zeros(6, DType::F64, &Device::Cpu)?;
    let projected = |weight: &Tensor| {
        let bias = &bias;
        of(
            &teacher,
            &student,
            Variant::ProjectedDivergence { weight, bias },
            1.0,
        )
    };
    assert_near(projected(&weight), plain);
    assert!((projected(&rows(6, 6, 0.4)) - plain).abs() > 1e-3);
    Ok(())
}

#[test]
fn the_order_of_heads_does_not_matter_on_either_side() -> Result<()> {
    let (teacher, student) = (maps(2, 3, 3, 4, 0.1), maps(2, 5, 3, 4, 0.7));
    let order = |order: &[u32]| Tensor::new(order, &Device::Cpu);
    let other_teacher = teacher.index_select(&order(&[2, 0, 1])?, 1)?;
    let other_student = student.index_select(&order(&[4, 2, 0, 1, 3])?, 1)?;
    let (weight, bias) = (rows(12, 12, 0.4), rows(1, 12, 0.2).squeeze(0)?);
    for variant in [
        Variant::Distance,
        Variant::Divergence,
        Variant::ProjectedDivergence {
            weight: &weight,
            bias: &bias,
        },
        Variant::RowDivergence,
    ] {
        let value = of(&teacher, &student, variant, 0.5);
        for (t, s) in [(&other_teacher, &student), (&teacher, &other_student)] {
            assert!(
                (of(t, s, variant, 0.5) - value).abs() < 1e-12,
                "{variant:?}"
            );
        }
    }
    // One-to-one sees the order, as it must.
    let few = student.narrow(1, 0, 2)?;
    let (value, other) = (
        one_to_one(&teacher, &few)?,
        one_to_one(&other_teacher, &few)?,
    );
    assert!((scalar(&value) - scalar(&other)).abs() > 1e-3);
    Ok(())
}

#[test]
fn divergences_are_never_negative() {
    for phase in [0.3, 1.1, 2.9] {
        let (teacher, student) = (maps(2, 4, 3, 5, phase), maps(2, 2, 3, 5, phase * 2.0));
        for variant in [Variant::Divergence, Variant::RowDivergence] {
            assert!(of(&teacher, &student, variant, 1.0) > 0.0);
        }
    }
}

#[test]
fn one_to_one_is_the_divergence_of_heads_at_the_same_place() -> Result<()> {
    let teacher = maps(1, 4, 2, 3, 0.1);
    let copy = one_to_one(&teacher, &teacher.narrow(1, 0, 2)?)?;
    assert_near(scalar(&copy), 0.0);
    // A single head has no mixture, so that both losses are the same.
    let (teacher, student) = (teacher.narrow(1, 0, 1)?, maps(1, 1, 2, 3, 0.7));
    let value = scalar(&one_to_one(&teacher, &student)?);
    assert_near(value, of(&teacher, &student, Variant::Divergence, 1.0));
    let message = one_to_one(&teacher, &maps(1, 2, 2, 3, 0.7)).expect_err("is refused");
    assert!(message.to_string().contains("2 student heads"), "{message}");
    Ok(())
}

#[test]
fn padding_changes_no_loss() -> Result<()> {
    let (teacher, student) = (maps(1, 3, 2, 2, 0.1), maps(1, 2, 2, 2, 0.7));
    // Two tokens more, which attend and are attended to until they are masked.
    let padded = |maps: &Tensor, junk: f64| -> Result<Tensor> {
        let heads = maps.dim(1)?;
        let right = Tensor::full(junk, (1, heads, 2, 2), &Device::Cpu)?;
        let below = Tensor::full(junk, (1, heads, 2, 4), &Device::Cpu)?;
        Tensor::cat(&[&Tensor::cat(&[maps, &right], 3)?, &below], 2)
    };
    let real = Tensor::new(&[[1.0, 1.0, 0.0, 0.0]], &Device::Cpu)?;
    let mask = |maps: &Tensor, junk: f64| masked(&padded(maps, junk)?, &real, &real);
    let (t, s) = (mask(&teacher, 0.3)?, mask(&student, 0.8)?);
    assert_near(scalar(&t.sum_all()?), 3.0 * 2.0);
    for variant in [
        Variant::Distance,
        Variant::Divergence,
        Variant::RowDivergence,
    ] {
        let gap = of(&t, &s, variant, 1.0) - of(&teacher, &student, variant, 1.0);
        assert!(gap.abs() < 1e-6, "{variant:?}: {gap}");
    }
    let unmasked = of(
        &padded(&teacher, 0.3)?,
        &padded(&student, 0.8)?,
        Variant::Distance,
        1.0,
    );
    assert!((unmasked - of(&teacher, &student, Variant::Distance, 1.0)).abs() > 1e-2);
    Ok(())
}

#[test]
fn layers_are_spread_evenly_and_the_last_learns_from_the_last() -> Result<()> {
    let pairs = |s, t| LayerMap::Uniform.pairs(s, t);
    assert_eq!(pairs(4, 12), [(0, 2), (1, 5), (2, 8), (3, 11)]);
    assert_eq!(pairs(3, 4), [(0, 1), (1, 2), (2, 3)]);
    assert_eq!(pairs(2, 1), [(0, 0), (1, 0)]);
    assert_eq!(LayerMap::Last.pairs(3, 4), [(2, 3)]);
    let layers = |n: usize, from: f64| -> Vec<Tensor> {
        (0..n).map(|i| maps(1, 2, 2, 3, from + i as f64)).collect()
    };
    let (teacher, student) = (layers(4, 0.1), layers(2, 9.0));
    let loss = |t: &Tensor, s: &Tensor| amad(t, s, Variant::Divergence, 1.0);
    let expected =
        scalar(&loss(&teacher[1], &student[0])?) + scalar(&loss(&teacher[3], &student[1])?);
    assert_near(
        scalar(&LayerMap::Uniform.sum(&teacher, &student, loss)?),
        expected,
    );
    assert!(LayerMap::Last.sum(&teacher, &[], loss).is_err());
    Ok(())
}

#[test]
fn maps_of_other_tokens_are_refused_until_they_are_pooled() -> Result<()> {
    let (teacher, student) = (maps(2, 3, 5, 5, 0.1), maps(2, 2, 17, 17, 0.7));
    let refused = amad(&teacher, &student, Variant::Divergence, 1.0).expect_err("is refused");
    assert!(refused.to_string().contains("pool them first"), "{refused}");
    let overlap = Overlap::grids(4, 2, 1)?;
    let pooled = pool(&teacher, &overlap, &overlap)?;
    amad(&pooled, &student, Variant::Divergence, 1.0)?;
    Ok(())
}

#[test]
fn a_finer_grid_repeats_rows_and_splits_columns_by_area() -> Result<()> {
    // From one patch and a class token to four: a quarter of the patch's attention for each.
    let teacher = Tensor::new(&[[[[0.2, 0.8], [0.6, 0.4]]]], &Device::Cpu)?;
    let overlap = Overlap::grids(2, 1, 1)?;
    let pooled = pool(&teacher, &overlap, &overlap)?.squeeze(0)?.squeeze(0)?;
    let class = [0.2, 0.2, 0.2, 0.2, 0.2];
    let patch = [0.6, 0.1, 0.1, 0.1, 0.1];
    for (i, row) in pooled.to_vec2::<f64>()?.iter().enumerate() {
        let expected = if i == 0 { class } else { patch };
        for (value, expected) in row.iter().zip(expected) {
            assert_near(*value, expected);
        }
    }
    Ok(())
}

#[test]
fn grids_that_do_not_divide_share_by_area_and_rows_still_sum_to_one() -> Result<()> {
    // Along one side, patches of thirds against halves: the middle third is half of each half.
    let teacher = maps(2, 2, 10, 10, 0.1);
    let (queries, keys) = (Overlap::grids(2, 3, 1)?, Overlap::grids(2, 3, 1)?);
    let pooled = pool(&teacher, &queries, &keys)?;
    assert_eq!(pooled.dims(), [2, 2, 5, 5]);
    for sum in pooled.sum(3)?.flatten_all()?.to_vec1::<f64>()? {
        assert_near(sum, 1.0);
    }
    // The first student patch has teacher patches 0, 1, 3, 4 with areas 4, 2, 2, 1 of 9.
    let at = |t: &Tensor, q: usize, k: usize| -> Result<f64> {
        t.get(0)?.get(0)?.get(q)?.get(k)?.to_scalar()
    };
    let areas = [(1, 4.0), (2, 2.0), (4, 2.0), (5, 1.0)];
    let mut class_key = 0.0;
    for (query, area) in areas {
        class_key += area / 9.0 * at(&teacher, query, 0)?;
    }
    assert_near(at(&pooled, 1, 0)?, class_key);
    // Of a teacher key, the part that lies in the student patch: all of 0, half of 1 and 3, a
    // quarter of 4.
    let mut first_key = 0.0;
    for (key, part) in [(1, 1.0), (2, 0.5), (4, 0.5), (5, 0.25)] {
        first_key += part * at(&teacher, 0, key)?;
    }
    assert_near(at(&pooled, 0, 1)?, first_key);
    Ok(())
}

#[test]
fn pieces_meet_the_word_that_they_are_part_of() -> Result<()> {
    use TextToken::{Mark, Padding, Piece};
    // "unhappy dog": the teacher has words, the student cuts the first one in 2 and 5 bytes.
    let teacher = vec![Mark(0), Piece(0..7), Piece(8..11), Padding];
    let student = vec![Mark(0), Piece(0..2), Piece(2..7), Piece(8..11)];
    let overlap = Overlap::texts(&[(student.clone(), teacher.clone())])?;
    let mut values = [[0.5, 0.3, 0.2, 0.0]; 4];
    values[3] = [0.0; 4];
    values[1] = [0.1, 0.7, 0.2, 0.0];
    let maps = Tensor::new(&[[values]], &Device::Cpu)?;
    let pooled = pool(&maps, &overlap, &overlap)?.squeeze(0)?.squeeze(0)?;
    let expected = [
        [0.5, 0.3 * 2.0 / 7.0, 0.3 * 5.0 / 7.0, 0.2],
        [0.1, 0.7 * 2.0 / 7.0, 0.7 * 5.0 / 7.0, 0.2],
        [0.1, 0.7 * 2.0 / 7.0, 0.7 * 5.0 / 7.0, 0.2],
        [0.5, 0.3 * 2.0 / 7.0, 0.3 * 5.0 / 7.0, 0.2],
    ];
    for (row, expected) in pooled.to_vec2::<f64>()?.iter().zip(expected) {
        for (value, expected) in row.iter().zip(expected) {
            assert_near(*value, expected);
        }
    }
    // And back: queries are averaged by bytes, keys summed.
    let back = Overlap::texts(&[(teacher.clone(), student.clone())])?;
    let back = pool(&pooled.unsqueeze(0)?.unsqueeze(0)?, &back, &back)?;
    let gap = (back - maps)?.abs()?.flatten_all()?.max(0)?;
    assert_near(scalar(&gap), 0.0);
    let cut = vec![Mark(0), Piece(0..7), Padding, Padding];
    let refused = Overlap::texts(&[(student, cut)]).expect_err("a word is alone");
    assert!(refused.to_string().contains("Piece(8..11)"), "{refused}");
    Ok(())
}

#[test]
fn gradients_of_every_variant_equal_finite_differences_and_teachers_get_none() -> Result<()> {
    let teacher = maps(2, 3, 2, 3, 0.1);
    let (weight, bias) = (rows(6, 6, 0.4), rows(1, 6, 0.2).squeeze(0)?);
    let start = rows(2 * 2 * 2, 3, 0.7);
    let student = |logits: &Tensor| softmax(logits, 1)?.reshape((2, 2, 2, 3));
    for variant in [
        Variant::Distance,
        Variant::Divergence,
        Variant::ProjectedDivergence {
            weight: &weight,
            bias: &bias,
        },
        Variant::RowDivergence,
    ] {
        check(&start, |logits| {
            amad(&teacher, &student(logits)?, variant, 0.3)
        });
    }
    check(&start, |logits| one_to_one(&teacher, &student(logits)?));
    let maps = student(&start)?;
    check(&weight, |weight| {
        let bias = &bias;
        amad(
            &teacher,
            &maps,
            Variant::ProjectedDivergence { weight, bias },
            0.3,
        )
    });
    let mask = Tensor::new(&[[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]], &Device::Cpu)?;
    let queries = Tensor::new(&[[1.0, 1.0], [1.0, 0.0]], &Device::Cpu)?;
    let real = masked(&teacher, &queries, &mask)?;
    check(&start, |logits| {
        let student = masked(&student(logits)?, &queries, &mask)?;
        amad(&real, &student, Variant::Divergence, 0.3)
    });
    let var = Var::from_tensor(&teacher)?;
    let loss = (amad(&var, &maps, Variant::Distance, 1.0)? + one_to_one(&var, &maps)?)?;
    assert!(loss.backward()?.get(&var).is_none());
    Ok(())
}
