//! The same functions on NVIDIA GPUs: kernels of `kernels.cu`, compiled for the GPU when the first is needed.

mod launch;
mod op;

use candle_core::{Result, Tensor, bail};

use self::{
    launch::{Launch, blocks, count},
    op::{Input, Op},
};
use super::{BatchStatistics, ConvShape, matmul};

/// Columns and rows of a block of the column sums, as in the source.
const COLUMNS: usize = 32;
const ROWS: usize = 8;
/// Most blocks that share the rows of a sum.
const SHARES: usize = 256;

/// See [`super::conv2d`]: unfolded patches, and one matrix product.
pub(super) fn conv2d(input: &Tensor, weight: &Tensor, shape: ConvShape) -> Result<Tensor> {
    let ConvShape { kernel, stride } = shape;
    let (n, h, w, c) = input.dims4()?;
    let (out, kh, kw, wc) = weight.dims4()?;
    if (kh, kw, wc) != (kernel, kernel, c) || kernel % 2 == 0 || stride == 0 {
        bail!(
            "weight {:?} does not fit kernel {kernel}, stride {stride}, {c} channels",
            weight.shape()
        );
    }
    let (out_h, out_w) = (h.div_ceil(stride), w.div_ceil(stride));
    let patch = kernel * kernel * c;
    let patches = if (kernel, stride) == (1, 1) {
        input.reshape((n * h * w, c))?
    } else {
        let sizes = [h, w, c, out_h, out_w, kernel, stride];
        let fold = Launch::each("fold", &[n, h, w, c], &sizes)?;
        Op {
            launch: Launch::each("unfold", &[n * out_h * out_w, patch], &sizes)?,
            inputs: vec![Input::Argument(0)],
            back: Box::new(move |_, _, grad| Ok(vec![fold.on(&[grad])?])),
        }
        .of1(input)?
    };
    matmul(&patches, &weight.reshape((out, patch))?.t()?)?.reshape((n, out_h, out_w, out))
}

/// The normalization of [`super::conv_norm`], with a rectifier behind it where `relu` is set.
pub(super) fn batch_norm(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    eps: f64,
    relu: bool,
) -> Result<(Tensor, BatchStatistics)> {
    let c = gamma.elem_count();
    let rows = x.elem_count() / c;
    let still = x.detach().contiguous()?;
    let means = (sums("moment_sums", &[&still], rows, c)? / rows as f64)?;
    let (offset, square) = (means.get(0)?, means.get(1)?);
    let mean = (still.flatten_all()?.narrow(0, 0, c)? + &offset)?;
    let variance = (square - offset.sqr()?)?.relu()?;
    let inverse = (&variance + eps)?.sqrt()?.recip()?;
    let scale = (gamma.detach() * &inverse)?;
    let by = Tensor::stack(&[&mean, &scale, &beta.detach()], 0)?;
    let statistics = BatchStatistics {
        mean: mean.clone(),
        variance,
        count: rows,
    };
    let back = Launch::each("batch_norm_back", x.dims(), &[c])?;
    let y = Op {
        launch: Launch::each("batch_norm", x.dims(), &[c, usize::from(relu)])?,
        inputs: vec![Input::Argument(0), Input::Held(by)],
        back: Box::new(move |arguments, y, grad| {
            let [x, gamma, _] = arguments else {
                bail!("batch normalization has three arguments");
            };
            let grad = if relu {
                relu_back(y, grad)?
            } else {
                grad.clone()
            };
            let by = Tensor::stack(&[&mean, &inverse], 0)?;
            let sums = sums("batch_norm_sums", &[x, &grad, &by], rows, c)?;
            let means = (&sums / rows as f64)?;
            let by = [&mean, &inverse, gamma, &means.get(0)?, &means.get(1)?];
            let dx = back.on(&[x, &grad, &Tensor::stack(&by, 0)?])?;
            Ok(vec![dx, sums.get(1)?, sums.get(0)?])
        }),
    }
    .of3(x, gamma, beta)?;
    Ok((y, statistics))
}

/// See [`super::layer_norm`].
pub(super) fn layer_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f64) -> Result<Tensor> {
    let c = gamma.elem_count();
    let rows = x.elem_count() / c;
    let still = x.detach().contiguous()?;
    let moments = Launch::rows("row_moments", &[rows, 2], rows, c, eps)?.on(&[&still])?;
    let by = Tensor::stack(&[&gamma.detach(), &beta.detach()], 0)?;
    let back = Launch::rows("layer_norm_back", x.dims(), rows, c, eps)?;
    Op {
        launch: Launch::each("layer_norm", x.dims(), &[c])?,
        inputs: vec![
            Input::Argument(0),
            Input::Held(moments.clone()),
            Input::Held(by),
        ],
        back: Box::new(move |arguments, _, grad| {
            let [x, gamma, _] = arguments else {
                bail!("layer normalization has three arguments");
            };
            let sums = sums("layer_norm_sums", &[x, grad, &moments], rows, c)?;
            Ok(vec![
                back.on(&[x, grad, gamma])?,
                sums.get(1)?,
                sums.get(0)?,
            ])
        }),
    }
    .of3(x, gamma, beta)
}

/// See [`super::add_relu`].
pub(super) fn add_relu(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Op {
        launch: Launch::each("add_relu", a.dims(), &[])?,
        inputs: vec![Input::Argument(0), Input::Argument(1)],
        back: Box::new(|_, y, grad| {
            let dx = relu_back(y, grad)?;
            Ok(vec![dx.clone(), dx])
        }),
    }
    .of2(a, b)
}

fn relu_back(y: &Tensor, grad: &Tensor) -> Result<Tensor> {
    Launch::each("relu_back", y.dims(), &[])?.on(&[y, grad])
}

/// See [`super::quick_gelu`].
pub(super) fn quick_gelu(x: &Tensor, slope: f32) -> Result<Tensor> {
    let back = Launch::each("quick_gelu_back", x.dims(), &[])?.with(slope);
    Op {
        launch: Launch::each("quick_gelu", x.dims(), &[])?.with(slope),
        inputs: vec![Input::Argument(0)],
        back: Box::new(move |arguments, _, grad| Ok(vec![back.on(&[arguments[0], grad])?])),
    }
    .of1(x)
}

/// See [`super::add_bias`].
pub(super) fn add_bias(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let c = bias.elem_count();
    let rows = x.elem_count() / c;
    Op {
        launch: Launch::each("add_bias", x.dims(), &[c])?,
        inputs: vec![Input::Argument(0), Input::Argument(1)],
        back: Box::new(move |_, _, grad| {
            let of_bias = sums("gradient_sums", &[grad], rows, c)?.get(0)?;
            Ok(vec![grad.clone(), of_bias])
        }),
    }
    .of2(x, bias)
}

/// See [`super::gather_rows`].
pub(super) fn gather_rows(table: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let (rows, c) = table.dims2()?;
    let n = ids.elem_count();
    let ids = ids.to_dtype(candle_core::DType::F32)?;
    let mut back = Launch::each("scatter_rows", &[rows, c], &[])?;
    // Of the rows that are added, not of the table.
    back = Launch {
        numbers: vec![count(n * c)?, count(c)?],
        blocks: (blocks(n * c), 1),
        zeros: true,
        ..back
    };
    let held = ids.clone();
    Op {
        launch: Launch::each("gather_rows", &[n, c], &[c])?,
        inputs: vec![Input::Argument(0), Input::Held(held)],
        back: Box::new(move |_, _, grad| Ok(vec![back.on(&[grad, &ids])?])),
    }
    .of1(table)
}

/// Sums of the two terms of a kernel over all rows, `[2, c]`.
fn sums(kernel: &'static str, of: &[&Tensor], rows: usize, c: usize) -> Result<Tensor> {
    let shares = rows.div_ceil(ROWS).clamp(1, SHARES);
    let partial = Launch {
        kernel,
        blocks: (count(c.div_ceil(COLUMNS))?, count(shares)?),
        threads: (COLUMNS as u32, ROWS as u32),
        out: vec![shares, 2, c],
        zeros: false,
        numbers: vec![count(rows)?, count(c)?],
        values: Vec::new(),
    };
    count(rows * c)?;
    let partial = partial.on(of)?;
    Launch::each("sum_blocks", &[2, c], &[shares])?.on(&[&partial])
}
