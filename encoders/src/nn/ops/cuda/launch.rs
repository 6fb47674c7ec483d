//! Kernels: how they are compiled and started.

#![allow(unsafe_code)]

use std::sync::OnceLock;

use candle_core::{
    CudaStorage, Layout, Result, Shape, Tensor, bail,
    cuda_backend::{
        WrapErr,
        cudarc::{
            driver::{LaunchConfig, PushKernelArg},
            nvrtc,
        },
    },
};

use super::op::{Input, Op};

const SOURCE: &str = include_str!("kernels.cu");

/// Threads of a block.
const THREADS: u32 = 256;
/// Threads of a warp, which some kernels give one row.
const WARP: usize = 32;

/// A size as kernels count.
///
/// # Errors
/// When it needs more than 32 bits.
pub fn count(n: usize) -> Result<u32> {
    match u32::try_from(n) {
        Ok(n) => Ok(n),
        Err(_) => bail!("{n} elements are more than a kernel counts: take smaller batches"),
    }
}

/// Blocks for `n` elements; each thread takes several where there are many.
pub fn blocks(n: usize) -> u32 {
    n.div_ceil(THREADS as usize).clamp(1, 1 << 16) as u32
}

/// A kernel and all that it is told but its inputs: `(inputs.., out, numbers.., values..)`.
#[derive(Clone)]
pub struct Launch {
    pub kernel: &'static str,
    pub blocks: (u32, u32),
    pub threads: (u32, u32),
    pub out: Vec<usize>,
    /// Whether the output must be zeros before.
    pub zeros: bool,
    pub numbers: Vec<u32>,
    pub values: Vec<f32>,
}

impl Launch {
    /// Thread by element of the output; their count is the first number.
    pub fn each(kernel: &'static str, out: &[usize], numbers: &[usize]) -> Result<Self> {
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
    pub fn rows(
        kernel: &'static str,
        out: &[usize],
        rows: usize,
        c: usize,
        eps: f64,
    ) -> Result<Self> {
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

    pub fn with(mut self, value: f32) -> Self {
        self.values.push(value);
        self
    }

    /// The output, without a backward pass.
    pub fn on(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let op = Op {
            launch: self.clone(),
            inputs: (0..inputs.len()).map(Input::Argument).collect(),
            back: Box::new(|_, _, _| Ok(Vec::new())),
        };
        let inputs = inputs.iter().map(|x| x.detach().contiguous());
        match &inputs.collect::<Result<Vec<_>>>()?[..] {
            [a] => a.apply_op1_no_bwd(&op),
            [a, b] => a.apply_op2_no_bwd(b, &op),
            [a, b, c] => a.apply_op3_no_bwd(b, c, &op),
            more => bail!("a kernel of {} inputs", more.len()),
        }
    }

    /// Runs the kernel on storages.
    pub fn start(&self, inputs: &[(&CudaStorage, &Layout)]) -> Result<(CudaStorage, Shape)> {
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
