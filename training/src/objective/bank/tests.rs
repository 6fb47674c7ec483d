use super::*;

const PLAIN: BankConfig = BankConfig {
    temperature: 0.5,
    hardest: None,
};

fn rows(n: usize, dim: usize, step: f32) -> Result<Tensor> {
    let values: Vec<f32> = (0..n * dim).map(|i| (i as f32 * step).sin()).collect();
    Tensor::from_vec(values, (n, dim), &Device::Cpu)
}

fn hardest(count: usize) -> BankConfig {
    BankConfig {
        hardest: NonZeroUsize::new(count),
        ..PLAIN
    }
}

#[test]
fn the_loss_of_right_angles_is_that_of_the_formula() -> Result<()> {
    let e = Tensor::eye(4, DType::F32, &Device::Cpu)?;
    let bank = Bank::from_keys(&e.narrow(0, 1, 3)?)?;
    let query = (e.narrow(0, 0, 1)? * 3.0)?;
    let loss = bank.loss(&query, &query, &PLAIN)?.to_scalar::<f32>()?;
    // exp(1 / 0.5) beside three negatives of cosine 0.
    let expected = (1.0 + 3.0 * (-2.0_f32).exp()).ln();
    assert!(
        (loss - expected).abs() < 1e-6,
        "{loss}, expected {expected}"
    );
    let other = e.narrow(0, 1, 1)?;
    let loss = bank.loss(&query, &other, &PLAIN)?.to_scalar::<f32>()?;
    assert!((loss - 4.0_f32.ln()).abs() < 1e-6, "{loss}");
    Ok(())
}

#[test]
fn only_the_hardest_keys_of_each_query_count() -> Result<()> {
    let (bank, dim) = (Bank::seeded(12, 3, 5, &Device::Cpu)?, 3);
    let (queries, keys) = (rows(4, dim, 0.7)?, rows(4, dim, 0.4)?);
    let cosines = unit_rows(&queries)?
        .matmul(&bank.keys().t()?)?
        .to_vec2::<f32>()?;
    let positives = (unit_rows(&queries)? * unit_rows(&keys)?)?
        .sum(1)?
        .to_vec1::<f32>()?;
    let all = bank.loss(&queries, &keys, &PLAIN)?.to_scalar::<f32>()?;
    for count in [1, 5, 12] {
        let loss = bank
            .loss(&queries, &keys, &hardest(count))?
            .to_scalar::<f32>()?;
        let by_hand = cosines.iter().zip(&positives).map(|(row, positive)| {
            let mut row = row.clone();
            row.sort_by(|a, b| b.total_cmp(a));
            let z: f32 = row[..count].iter().map(|s| (s / 0.5).exp()).sum();
            (1.0 + z / (positive / 0.5).exp()).ln()
        });
        let by_hand = by_hand.sum::<f32>() / 4.0;
        assert!((loss - by_hand).abs() < 1e-5, "{count}: {loss}, {by_hand}");
        assert_eq!((loss - all).abs() < 1e-6, count == 12, "{count}");
    }
    let error = bank
        .loss(&queries, &keys, &hardest(13))
        .expect_err("12 keys");
    assert!(error.to_string().contains("13 hardest of 12"), "{error}");
    Ok(())
}

#[test]
fn gradients_equal_finite_differences_and_keys_have_none() -> Result<()> {
    let (n, dim) = (3, 4);
    let bank = Bank::seeded(8, dim, 1, &Device::Cpu)?;
    let start = rows(n, dim, 0.9)?.flatten_all()?.to_vec1::<f32>()?;
    let keys = Var::from_tensor(&rows(n, dim, 0.35)?)?;
    for config in [PLAIN, hardest(3)] {
        let at = |values: Vec<f32>| -> Result<(Var, Tensor)> {
            let queries = Var::from_vec(values, (n, dim), &Device::Cpu)?;
            let loss = bank.loss(&queries, &keys, &config)?;
            Ok((queries, loss))
        };
        let (queries, loss) = at(start.clone())?;
        let gradients = loss.backward()?;
        assert!(gradients.get(&keys).is_none(), "keys have a gradient");
        let gradient = gradients.get(&queries).expect("a gradient").flatten_all()?;
        for (i, gradient) in gradient.to_vec1::<f32>()?.into_iter().enumerate() {
            let moved = |by: f32| -> Result<f32> {
                let mut values = start.clone();
                values[i] += by;
                at(values)?.1.to_scalar::<f32>()
            };
            let step = 5e-3;
            let slope = (moved(step)? - moved(-step)?) / (2.0 * step);
            assert!((slope - gradient).abs() < 2e-3, "{i}: {slope}, {gradient}");
        }
    }
    Ok(())
}

#[test]
fn the_bank_holds_the_last_keys_in_their_order() -> Result<()> {
    let (size, dim) = (6, 3);
    let mut bank = Bank::seeded(size, dim, 2, &Device::Cpu)?;
    let first = bank.keys().to_vec2::<f32>()?;
    let lengths = bank.keys().sqr()?.sum(1)?.to_vec1::<f32>()?;
    assert!(lengths.iter().all(|length| (length - 1.0).abs() < 1e-5));
    let given = rows(8, dim, 0.6)?;
    bank.push(&given.narrow(0, 0, 2)?)?;
    assert_eq!(bank.keys().to_vec2::<f32>()?[..4], first[2..]);
    for batch in 1..4 {
        bank.push(&given.narrow(0, 2 * batch, 2)?)?;
    }
    let expected = unit_rows(&given.narrow(0, 2, size)?)?.to_vec2::<f32>()?;
    assert_eq!(bank.keys().to_vec2::<f32>()?, expected);
    let restored = Bank::from_keys(bank.keys())?;
    assert_eq!(restored.keys().to_vec2::<f32>()?, expected);
    Ok(())
}

#[test]
fn what_does_not_fit_the_bank_is_refused() -> Result<()> {
    let mut bank = Bank::seeded(6, 3, 2, &Device::Cpu)?;
    let error = bank
        .push(&rows(4, 3, 0.6)?)
        .expect_err("6 is no multiple of 4");
    assert!(error.to_string().contains("4 at a time"), "{error}");
    assert!(bank.push(&rows(2, 5, 0.6)?).is_err(), "another dim");
    let error = Bank::from_keys(&rows(2, 3, 0.6)?).expect_err("rows of other lengths");
    assert!(error.to_string().contains("key 0 has length"), "{error}");
    Ok(())
}

#[test]
fn followers_move_by_the_rest_of_the_momentum() -> Result<()> {
    let var = |values: &[f32]| Var::from_slice(values, values.len(), &Device::Cpu);
    let (slow, fast, bias) = (var(&[1.0, -2.0])?, var(&[3.0, 2.0])?, var(&[5.0])?);
    for _ in 0..2 {
        follow([("w", &slow)], [("w", &fast)], 0.75)?;
    }
    // 9/16 of the old value and 7/16 of the new one.
    assert_eq!(slow.to_vec1::<f32>()?, [1.875, -0.25]);
    assert_eq!(fast.to_vec1::<f32>()?, [3.0, 2.0]);
    let error = follow([("w", &slow)], [("w", &fast), ("b", &bias)], 0.5);
    let message = error.expect_err("b has no follower").to_string();
    assert!(message.contains("tensor b"), "{message}");
    assert_eq!(slow.to_vec1::<f32>()?, [1.875, -0.25]);
    Ok(())
}
