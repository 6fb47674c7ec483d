//! Gradients beside finite differences, for the tests of all terms.

use candle_core::{DType, Device, Result, Tensor, Var};

/// A `[n, dim]` of double precision without pattern; another `phase` gives another.
pub(super) fn rows(n: usize, dim: usize, phase: f64) -> Tensor {
    let values = (0..n * dim).map(|i| ((i as f64 + 1.0) * 1.7 + phase * (i as f64).sqrt()).sin());
    Tensor::from_vec(values.collect(), (n, dim), &Device::Cpu).expect("shape fits")
}

pub(super) fn scalar(tensor: &Tensor) -> f64 {
    let tensor = tensor.to_dtype(DType::F64).expect("a number");
    tensor.to_scalar().expect("a scalar")
}

/// Checks the gradient of `loss` at every element of `start` (in double precision), which must not
/// be zero everywhere.
pub(super) fn check(start: &Tensor, loss: impl Fn(&Tensor) -> Result<Tensor>) {
    const STEP: f64 = 1e-5;
    let var = Var::from_tensor(start).expect("a variable");
    let gradients = loss(&var)
        .expect("a loss")
        .backward()
        .expect("a backward pass");
    let gradient = gradients.get(&var).expect("a gradient").flatten_all();
    let gradient = gradient.expect("flat").to_vec1::<f64>().expect("f64");
    let values = start
        .flatten_all()
        .expect("flat")
        .to_vec1::<f64>()
        .expect("f64");
    let moved = |i: usize, by: f64| {
        let mut values = values.clone();
        values[i] += by;
        let at = Tensor::from_vec(values, start.shape(), &Device::Cpu).expect("shape fits");
        scalar(&loss(&at).expect("a loss"))
    };
    for (i, gradient) in gradient.iter().enumerate() {
        let slope = (moved(i, STEP) - moved(i, -STEP)) / (2.0 * STEP);
        let gap = (slope - gradient).abs();
        assert!(
            gap < 1e-7 * (1.0 + slope.abs()),
            "{i}: {slope} against {gradient}"
        );
    }
    assert!(
        gradient.iter().any(|g| g.abs() > 1e-4),
        "the loss does not move"
    );
}
