//! A kernel as an operation of candle, with a backward pass.

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage,
    Tensor, bail,
};

use super::launch::Launch;

/// What a kernel reads.
pub enum Input {
    /// An argument of the operation, by its position.
    Argument(usize),
    /// Something that was made from them before.
    Held(Tensor),
}

/// Gradients of the arguments, in order, from the arguments, the result and its gradient.
pub type Back = Box<dyn Fn(&[&Tensor], &Tensor, &Tensor) -> Result<Vec<Tensor>> + Send + Sync>;

/// A kernel with a backward pass.
pub struct Op {
    pub launch: Launch,
    pub inputs: Vec<Input>,
    pub back: Back,
}

impl Op {
    pub fn of1(self, a: &Tensor) -> Result<Tensor> {
        a.contiguous()?.apply_op1(self)
    }

    pub fn of2(self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        a.contiguous()?.apply_op2(&b.contiguous()?, self)
    }

    pub fn of3(self, a: &Tensor, b: &Tensor, c: &Tensor) -> Result<Tensor> {
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
