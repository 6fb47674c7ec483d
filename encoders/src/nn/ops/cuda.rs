//! The same functions on NVIDIA GPUs: kernels of `cuda.cu`, compiled for the GPU when the first is needed.

#![allow(unsafe_code)]

use std::sync::OnceLock;

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage,
    Tensor, bail,
    cuda_backend::{
        WrapErr,
        cudarc::{
            driver::{LaunchConfig, PushKernelArg},
            nvrtc,
        },
    },
};

use super::{BatchStatistics, ConvShape};

const SOURCE: &str = include_str!("cuda.cu");

/// Threads of a block.
const THREADS: u32 = 256;
/// Threads of a warp, which some kernels give one row.
const WARP: usize = 32;
/// As in the source.
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
    patches
        .matmul(&weight.reshape((out, patch))?.t()?)?
        .reshape((n, out_h, out_w, out))
}

/// See [`super::batch_norm`].
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

fn count(n: usize) -> Result<u32> {
    match u32::try_from(n) {
        Ok(n) => Ok(n),
        Err(_) => bail!("{n} elements are more than a kernel counts: take smaller batches"),
    }
}

/// Blocks for `n` elements; each thread takes several where there are many.
fn blocks(n: usize) -> u32 {
    n.div_ceil(THREADS as usize).clamp(1, 1 << 16) as u32
}

/// A kernel and all that it is told but its inputs: `(inputs.., out, numbers.., values..)`.
#[derive(Clone)]
struct Launch {
    kernel: &'static str,
    blocks: (u32, u32),
    threads: (u32, u32),
    out: Vec<usize>,
    /// Whether the output must be zeros before.
    zeros: bool,
    numbers: Vec<u32>,
    values: Vec<f32>,
}

impl Launch {
    /// Thread by element of the output; their count is the first number.
    fn each(kernel: &'static str, out: &[usize], numbers: &[usize]) -> Result<Self> {
        let n = out.iter().product::<usize>();
        let numbers = std::iter::once(&n).chain(numbers).map(|n| count(*n));
        Ok(Self {
            kernel,
            blocks: (blocks(n), 1),
            threads: (THREADS, 1),
            out: out.to_vec(),
            zeros: false,
            numbers: numbers.collect::<Result<_>>()?,
            values: Vec::new(),
        })
    }

    /// Warp by row.
    fn rows(kernel: &'static str, out: &[usize], rows: usize, c: usize, eps: f64) -> Result<Self> {
        count(rows * c)?;
        Ok(Self {
            kernel,
            blocks: (count((rows * WARP).div_ceil(THREADS as usize).max(1))?, 1),
            threads: (THREADS, 1),
            out: out.to_vec(),
            zeros: false,
            numbers: vec![count(rows)?, count(c)?],
            values: vec![eps as f32],
        })
    }

    fn with(mut self, value: f32) -> Self {
        self.values.push(value);
        self
    }

    /// The output, without a backward pass.
    fn on(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let inputs = inputs.iter().map(|x| x.detach().contiguous());
        match &inputs.collect::<Result<Vec<_>>>()?[..] {
            [a] => a.apply_op1_no_bwd(self),
            [a, b] => a.apply_op2_no_bwd(b, self),
            [a, b, c] => a.apply_op3_no_bwd(b, c, self),
            more => bail!("a kernel of {} inputs", more.len()),
        }
    }

    fn start(&self, inputs: &[(&CudaStorage, &Layout)]) -> Result<(CudaStorage, Shape)> {
        let Some((first, _)) = inputs.first() else {
            bail!("a kernel without inputs");
        };
        let device = &first.device;
        let function = device.get_or_load_custom_func(self.kernel, "diptych", ptx()?)?;
        let shape = Shape::from(self.out.clone());
        let elements = shape.elem_count();
        let out = if self.zeros {
            device.alloc_zeros::<f32>(elements)?
        } else {
            // SAFETY: every kernel writes all elements of its output, but the one that wants zeros.
            unsafe { device.alloc::<f32>(elements)? }
        };
        let mut views = Vec::with_capacity(inputs.len());
        for (storage, layout) in inputs {
            let Some((from, to)) = layout.contiguous_offsets() else {
                bail!("a kernel needs contiguous operands");
            };
            views.push(storage.as_cuda_slice::<f32>()?.slice(from..to));
        }
        let mut launch = function.builder();
        for view in &views {
            launch.arg(view);
        }
        launch.arg(&out);
        for number in &self.numbers {
            launch.arg(number);
        }
        for value in &self.values {
            launch.arg(value);
        }
        let config = LaunchConfig {
            grid_dim: (self.blocks.0, self.blocks.1, 1),
            block_dim: (self.threads.0, self.threads.1, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: the arguments are those of the kernel of that name, and the sizes among them are
        // those of the buffers, which the callers in this file see to.
        unsafe { launch.launch(config) }.w()?;
        Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), shape))
    }
}

/// The kernels as code for the driver, compiled once per process.
fn ptx() -> Result<&'static str> {
    static PTX: OnceLock<std::result::Result<String, String>> = OnceLock::new();
    let compiled = PTX.get_or_init(|| {
        let ptx = nvrtc::compile_ptx(SOURCE);
        ptx.map(|ptx| ptx.to_src()).map_err(|e| format!("{e:?}"))
    });
    match compiled {
        Ok(ptx) => Ok(ptx),
        Err(problem) => bail!("the kernels for GPUs do not compile here: {problem}"),
    }
}

/// What a kernel reads.
enum Input {
    /// An argument of the operation, by its position.
    Argument(usize),
    /// Something that was made from them before.
    Held(Tensor),
}

/// Gradients of the arguments, in order, from the arguments, the result and its gradient.
type Back = Box<dyn Fn(&[&Tensor], &Tensor, &Tensor) -> Result<Vec<Tensor>> + Send + Sync>;

/// A kernel with a backward pass.
struct Op {
    launch: Launch,
    inputs: Vec<Input>,
    back: Back,
}

impl Op {
    fn of1(self, a: &Tensor) -> Result<Tensor> {
        a.contiguous()?.apply_op1(self)
    }

    fn of2(self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        a.contiguous()?.apply_op2(&b.contiguous()?, self)
    }

    fn of3(self, a: &Tensor, b: &Tensor, c: &Tensor) -> Result<Tensor> {
        a.contiguous()?
            .apply_op3(&b.contiguous()?, &c.contiguous()?, self)
    }

    fn forward(&self, arguments: &[(&CudaStorage, &Layout)]) -> Result<(CudaStorage, Shape)> {
        let held: Vec<_> = self
            .inputs
            .iter()
            .map(|input| match input {
                Input::Argument(_) => None,
                Input::Held(tensor) => Some(tensor.storage_and_layout()),
            })
            .collect();
        let mut inputs = Vec::with_capacity(held.len());
        for (input, held) in self.inputs.iter().zip(&held) {
            match (input, held) {
                (Input::Argument(i), _) => inputs.push(arguments[*i]),
                (Input::Held(_), Some((storage, layout))) => match &**storage {
                    Storage::Cuda(storage) => inputs.push((storage, *layout)),
                    _ => bail!("a kernel got a tensor that is not on the GPU"),
                },
                (Input::Held(_), None) => {}
            }
        }
        self.launch.start(&inputs)
    }

    fn gradients<const N: usize>(
        &self,
        arguments: [&Tensor; N],
        res: &Tensor,
        grad: &Tensor,
    ) -> Result<[Option<Tensor>; N]> {
        let grad = grad.contiguous()?;
        let mut gradients = (self.back)(&arguments, res, &grad)?.into_iter();
        Ok(std::array::from_fn(|_| gradients.next()))
    }
}

fn no_cpu<T>(name: &str) -> Result<T> {
    bail!("{name} is a kernel for GPUs")
}

impl CustomOp1 for Op {
    fn name(&self) -> &'static str {
        self.launch.kernel
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        no_cpu(self.launch.kernel)
    }

    fn cuda_fwd(&self, s: &CudaStorage, l: &Layout) -> Result<(CudaStorage, Shape)> {
        self.forward(&[(s, l)])
    }

    fn bwd(&self, a: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let [a] = self.gradients([a], res, grad)?;
        Ok(a)
    }
}

impl CustomOp2 for Op {
    fn name(&self) -> &'static str {
        self.launch.kernel
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        no_cpu(self.launch.kernel)
    }

    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.forward(&[(s1, l1), (s2, l2)])
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [a, b] = self.gradients([a, b], res, grad)?;
        Ok((a, b))
    }
}

impl CustomOp3 for Op {
    fn name(&self) -> &'static str {
        self.launch.kernel
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        no_cpu(self.launch.kernel)
    }

    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
        s3: &CudaStorage,
        l3: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.forward(&[(s1, l1), (s2, l2), (s3, l3)])
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [a, b, c] = self.gradients([a, b, c], res, grad)?;
        Ok((a, b, c))
    }
}

// A kernel alone is an operation without a backward pass.
impl CustomOp1 for Launch {
    fn name(&self) -> &'static str {
        self.kernel
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        no_cpu(self.kernel)
    }

    fn cuda_fwd(&self, s: &CudaStorage, l: &Layout) -> Result<(CudaStorage, Shape)> {
        self.start(&[(s, l)])
    }
}

impl CustomOp2 for Launch {
    fn name(&self) -> &'static str {
        self.kernel
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        no_cpu(self.kernel)
    }

    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.start(&[(s1, l1), (s2, l2)])
    }
}

impl CustomOp3 for Launch {
    fn name(&self) -> &'static str {
        self.kernel
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        no_cpu(self.kernel)
    }

    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
        s3: &CudaStorage,
        l3: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.start(&[(s1, l1), (s2, l2), (s3, l3)])
    }
}
