//! Maps of features between the convolutions of a tower that is trained.
//!
//! candle adds each gradient to a tensor of zeros of its own, one more pass over memory for every map, and the maps of
//! a convolution tower are most of what its training moves. So, on the CPU, gradients of maps go from
//! operation to operation by hand: candle's graph has a token of one number in the place of each map, which
//! keeps the order, and the gradient lies beside it in a slot that whoever uses the map adds to, and whoever
//! made it takes it from.
//!
//! So a graph has one backward pass at a time, and none after one that failed.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor, bail};
use parking_lot::Mutex;
use rayon::prelude::*;

use super::{CHUNK, with_elements};
use crate::cpu::wide;

/// Pictures of features, `[n, h, w, c]`.
#[derive(Debug, Clone)]
pub struct Map(Inner);

#[derive(Debug, Clone)]
enum Inner {
    Plain(Tensor),
    Flow(Flow),
}

impl From<Tensor> for Map {
    fn from(tensor: Tensor) -> Self {
        Self(Inner::Plain(tensor))
    }
}

impl From<Flow> for Map {
    fn from(flow: Flow) -> Self {
        Self(Inner::Flow(flow))
    }
}

impl Map {
    /// The features as a tensor of the graph.
    ///
    /// # Errors
    /// When memory does not suffice.
    pub fn tensor(&self) -> Result<Tensor> {
        match &self.0 {
            Inner::Plain(tensor) => Ok(tensor.clone()),
            Inner::Flow(flow) => flow.token.apply_op1(Leave(flow.clone())),
        }
    }

    /// The features as operations by hand take them, on the CPU.
    pub(super) fn flow(&self) -> Result<Flow> {
        match &self.0 {
            Inner::Plain(tensor) => Flow::enter(tensor),
            Inner::Flow(flow) => Ok(flow.clone()),
        }
    }
}

/// A map whose gradient is handed on in a slot.
#[derive(Debug, Clone)]
pub(super) struct Flow {
    /// The features, contiguous and without a graph.
    pub values: Tensor,
    /// Stands for them in the graph; not part of it where nobody wants a gradient.
    pub token: Tensor,
    /// Where its gradient comes together.
    pub slot: Slot,
}

impl Flow {
    fn enter(tensor: &Tensor) -> Result<Self> {
        let tensor = tensor.contiguous()?;
        let slot = Slot::default();
        let token = if tensor.track_op() {
            tensor.apply_op1(Enter(slot.clone()))?
        } else {
            token()?
        };
        Ok(Self {
            values: tensor.detach(),
            token,
            slot,
        })
    }
}

/// A token without a history.
pub(super) fn token() -> Result<Tensor> {
    Tensor::zeros(1, candle_core::DType::F32, &Device::Cpu)
}

/// What an operation by hand gives to candle.
pub(super) fn token_storage() -> (CpuStorage, Shape) {
    (CpuStorage::F32(vec![0.0]), 1.into())
}

/// Where the gradient of a map comes together.
#[derive(Debug, Clone, Default)]
pub(super) struct Slot(Arc<Mutex<Option<Vec<f32>>>>);

impl Slot {
    /// Adds a gradient.
    pub fn give(&self, gradient: Vec<f32>) {
        // Not under the lock: whoever adds with the pool may be given another task meanwhile.
        let sum = match self.take() {
            None => gradient,
            Some(mut sum) => {
                add(&mut sum, &gradient);
                sum
            }
        };
        *self.0.lock() = Some(sum);
    }

    /// What has come together so far; nothing is left.
    pub fn take(&self) -> Option<Vec<f32>> {
        self.0.lock().take()
    }

    /// The whole gradient, when all who use the map have given theirs.
    ///
    /// # Errors
    /// When none has.
    pub fn whole(&self) -> Result<Vec<f32>> {
        match self.take() {
            Some(gradient) => Ok(gradient),
            None => bail!("a map of features was given no gradient"),
        }
    }
}

/// `sum += x`.
fn add(sum: &mut [f32], x: &[f32]) {
    let parts = sum.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK));
    parts.for_each(|(sum, x)| {
        wide(
            #[inline(always)]
            || {
                for (sum, x) in sum.iter_mut().zip(x) {
                    *sum += x;
                }
            },
        );
    });
}

/// From a tensor of the graph to a map.
struct Enter(Slot);

impl CustomOp1 for Enter {
    fn name(&self) -> &'static str {
        "enter-map"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(token_storage())
    }

    fn bwd(&self, tensor: &Tensor, _res: &Tensor, _grad: &Tensor) -> Result<Option<Tensor>> {
        Tensor::from_vec(self.0.whole()?, tensor.shape(), tensor.device()).map(Some)
    }
}

/// From a map to a tensor of the graph.
struct Leave(Flow);

impl CustomOp1 for Leave {
    fn name(&self) -> &'static str {
        "leave-map"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let values = with_elements(&self.0.values, <[f32]>::to_vec)?;
        Ok((CpuStorage::F32(values), self.0.values.shape().clone()))
    }

    fn bwd(&self, token: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        self.0.slot.give(with_elements(grad, <[f32]>::to_vec)?);
        token.zeros_like().map(Some)
    }
}
