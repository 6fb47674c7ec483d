//! What is trained: an image tower and the head that the contrast looks at.

use candle_core::{Result, Tensor};
use encoders::nn::{Form, ImageConfig, ImageTower, Init, Source};

use crate::TrainingError;

/// Begin of the names of what is thrown away after training.
pub(super) const HEAD: &str = "contrast.";

/// Sizes of a tower and its head.
#[derive(Debug, Clone)]
pub(super) struct Sizes {
    pub image: ImageConfig,
    /// Elements of a shared embedding.
    pub shared: usize,
    /// Elements of a key.
    pub key: usize,
}

/// An image tower, and a head of two layers behind its pooled output (Chen et al. 2020).
pub(super) struct Tower {
    pub image: ImageTower,
    /// Weights `[outputs, inputs]` and biases `[outputs]`.
    layers: [(Tensor, Tensor); 2],
}

impl Tower {
    /// Takes every tensor from `source`.
    pub(super) fn new(
        source: &mut dyn Source,
        sizes: &Sizes,
        form: Form,
    ) -> std::result::Result<Self, TrainingError> {
        let image = ImageTower::new(source, &sizes.image, sizes.shared, form)?;
        let width = sizes.image.width();
        let mut layer = |number: usize, outputs: usize| {
            // Keeps the size of signals behind a rectifier (He et al. 2015, equation 10).
            let deviation = (2.0 / width as f32).sqrt();
            let name = format!("{HEAD}{number}");
            let shape = [outputs, width];
            let weight = source.tensor(
                &format!("{name}.weight"),
                &shape,
                Init::Normal { deviation },
            )?;
            let bias = source.tensor(&format!("{name}.bias"), &shape[..1], Init::Constant(0.0))?;
            Ok::<_, TrainingError>((weight, bias))
        };
        let layers = [layer(0, width)?, layer(1, sizes.key)?];
        Ok(Self { image, layers })
    }

    /// Pooled rows `[n, width]` to what is contrasted, `[n, key]`, of any length.
    pub(super) fn contrasted(&self, pooled: &Tensor) -> Result<Tensor> {
        let [first, second] = &self.layers;
        let apply = |x: &Tensor, (weight, bias): &(Tensor, Tensor)| {
            x.matmul(&weight.t()?)?.broadcast_add(bias)
        };
        apply(&apply(pooled, first)?.relu()?, second)
    }
}
