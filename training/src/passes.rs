//! A batch through both towers: in one pass, or in several that together have the gradient of one.
//!
//! A contrast needs the embeddings of the whole batch, its towers' activations do not fit into memory for
//! many. So embeddings are made first, part after part, and their activations are let go; the loss of
//! the whole batch gives the gradient of each embedding; then each part goes through the towers again,
//! now with activations, and brings that gradient to the weights (`GradCache`: Gao et al. 2021). All
//! negatives of the batch count, and the sum is that of one pass up to rounding, at the price of a second
//! pass forward. Batch normalization is the exception: its statistics are those of each part.

use candle_core::{Device, Result, Tensor, Var, backprop::GradStore};
use encoders::nn::BatchStatistics;

use crate::{loader::Batch, objective::latent::Views, towers::Towers};

/// A batch on its way through the towers.
pub(crate) struct Passes<'a> {
    /// The towers.
    pub towers: &'a Towers,
    /// What goes through them.
    pub batch: &'a Batch,
    /// Side of a picture in pixels.
    pub side: usize,
    /// Where the weights are.
    pub device: &'a Device,
    /// In how many passes; divides the number of items.
    pub parts: usize,
}

/// The embeddings of a batch, of all views.
pub(crate) struct Embedded {
    /// Shared ones.
    pub shared: Views,
    /// Specific ones, where the model has them.
    pub specific: Option<Views>,
    /// Where the graph of the loss begins, where it does not reach into the towers: `[views * n, dim]`
    /// each, in the order of [`Passes::rows`].
    leaves: Option<Vec<Var>>,
}

impl Passes<'_> {
    /// Embeds the batch.
    ///
    /// # Errors
    /// When the network fails.
    pub fn embed(&self) -> Result<Embedded> {
        if self.parts == 1 {
            return self.embedded(&self.rows(0)?, None);
        }
        let mut parts = Vec::with_capacity(self.parts);
        for part in 0..self.parts {
            let rows = self.rows(part)?;
            parts.push(
                rows.into_iter()
                    .map(|rows| rows.detach())
                    .collect::<Vec<_>>(),
            );
        }
        let kinds = parts.first().map_or(0, Vec::len);
        let size = self.size();
        let mut leaves = Vec::with_capacity(kinds);
        for kind in 0..kinds {
            let mut all = Vec::with_capacity(self.views() * self.parts);
            for view in 0..self.views() {
                for part in &parts {
                    all.push(part[kind].narrow(0, view * size, size)?);
                }
            }
            leaves.push(Var::from_tensor(&Tensor::cat(&all, 0)?)?);
        }
        let rows: Vec<Tensor> = leaves.iter().map(|l| l.as_tensor().clone()).collect();
        self.embedded(&rows, Some(leaves))
    }

    /// Brings the gradients of a loss of `embedded` on to the weights. Also gives the batch statistics that
    /// the passes recorded.
    ///
    /// # Errors
    /// When the network fails.
    pub fn backward(
        &self,
        embedded: &Embedded,
        mut gradients: GradStore,
    ) -> Result<(GradStore, Vec<(String, BatchStatistics)>)> {
        let Some(leaves) = &embedded.leaves else {
            return Ok((gradients, self.towers.network.image.take_statistics()));
        };
        let size = self.size();
        let slopes: Vec<Option<Tensor>> =
            leaves.iter().map(|leaf| gradients.remove(leaf)).collect();
        let mut statistics = Vec::new();
        for part in 0..self.parts {
            let mut sum: Option<Tensor> = None;
            for (rows, slopes) in self.rows(part)?.iter().zip(&slopes) {
                let Some(slopes) = slopes else { continue };
                let own = (0..self.views()).map(|view| {
                    let start = view * self.batch.items.len() + part * size;
                    slopes.narrow(0, start, size)
                });
                let own = Tensor::cat(&own.collect::<Result<Vec<_>>>()?, 0)?;
                // Its gradient by the rows is `own`.
                let along = (rows * own)?.sum_all()?;
                sum = Some(match sum {
                    Some(sum) => (sum + along)?,
                    None => along,
                });
            }
            if let Some(sum) = sum {
                gradients.extend(sum.backward()?)?;
            }
            statistics.extend(self.towers.network.image.take_statistics());
        }
        Ok((gradients, statistics))
    }

    fn views(&self) -> usize {
        1 + usize::from(self.batch.second.is_some())
    }

    /// Items of a part.
    fn size(&self) -> usize {
        self.batch.items.len() / self.parts
    }

    /// Rows of a part, `[views * size, dim]` each: shared ones of images and texts, then specific ones.
    fn rows(&self, part: usize) -> Result<Vec<Tensor>> {
        let (size, side) = (self.size(), self.side);
        let start = part * size;
        let pixels_each = 3 * side * side;
        let (mut pixels, mut tokens) = (Vec::new(), Vec::new());
        for view in std::iter::once(&self.batch.first).chain(&self.batch.second) {
            let own = &view.pixels[start * pixels_each..(start + size) * pixels_each];
            pixels.push(Tensor::from_slice(own, (size, 3, side, side), self.device)?);
            tokens.extend(view.tokens[start..start + size].iter().cloned());
        }
        let images = self.towers.images(&Tensor::cat(&pixels, 0)?)?;
        let texts = self.towers.texts(&tokens)?;
        let specific = images.specific.into_iter().chain(texts.specific);
        Ok([images.shared, texts.shared]
            .into_iter()
            .chain(specific)
            .collect())
    }

    fn embedded(&self, rows: &[Tensor], leaves: Option<Vec<Var>>) -> Result<Embedded> {
        let n = self.batch.items.len();
        let views = |images: &Tensor, texts: &Tensor| -> Result<Views> {
            let first = |rows: &Tensor| rows.narrow(0, 0, n);
            let second = |rows: &Tensor| {
                let second = self.batch.second.as_ref();
                second.map(|_| rows.narrow(0, n, n)).transpose()
            };
            Ok(Views {
                image: first(images)?,
                text: first(texts)?,
                image_augmented: second(images)?,
                text_augmented: second(texts)?,
            })
        };
        let mut rows = rows.iter();
        let mut pair = || Some((rows.next()?, rows.next()?));
        let (Some((images, texts)), specific) = (pair(), pair()) else {
            candle_core::bail!("towers gave no rows");
        };
        let specific = specific.map(|(images, texts)| views(images, texts));
        Ok(Embedded {
            shared: views(images, texts)?,
            specific: specific.transpose()?,
            leaves,
        })
    }
}

#[cfg(test)]
mod tests {
    use encoders::nn::Form;

    use super::*;
    use crate::{config::RunConfig, loader::View, objective::info_nce, parameters::Parameters};

    const MODEL: &str = r#"
        name = "toy"
        dim = 8
        image = { kind = "vit", image_size = 8, patch_size = 4, width = 16, layers = 2, heads = 2 }
        text = { vocabulary = 514, context_length = 6, width = 16, layers = 1, heads = 2 }
    "#;

    fn batch(n: usize, side: usize) -> Batch {
        let view = |k: usize| View {
            pixels: (0..n * 3 * side * side)
                .map(|i| ((i * (k + 2)) as f32 * 0.37).sin())
                .collect(),
            tokens: (0..n)
                .map(|i| [512, (7 * i + k) as u32, 513][..2 + i % 2].to_vec())
                .map(|mut ids| {
                    ids.push(513);
                    ids
                })
                .collect(),
        };
        Batch {
            items: (0..n).collect(),
            first: view(0),
            second: Some(view(1)),
            positives: Vec::new(),
            text_positives: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// Loss and gradients by name with so many passes.
    fn gradients(parts: usize) -> (f32, Vec<(String, Vec<f32>)>) {
        let model: crate::config::ModelSection = toml::from_str(MODEL).expect("a model");
        let network = model.network(514, 513).expect("sizes");
        let mut parameters = Parameters::seeded(3, Device::Cpu);
        let form = Form::Differentiable {
            batch_statistics: true,
        };
        let towers = Towers::new(&mut parameters, &network, 8, form).expect("builds");
        let batch = batch(6, 8);
        let passes = Passes {
            towers: &towers,
            batch: &batch,
            side: 8,
            device: &Device::Cpu,
            parts,
        };
        let embedded = passes.embed().expect("embeds");
        let alone = Tensor::eye(6, candle_core::DType::F32, &Device::Cpu).expect("eye");
        let scale = &towers.network.logit_scale;
        let specific = embedded.specific.as_ref().expect("specific rows");
        let shared = &embedded.shared;
        let second = |rows: &Option<Tensor>| rows.clone().expect("a second view");
        let terms = [
            info_nce(&shared.image, &shared.text, scale, &alone),
            info_nce(
                &shared.image,
                &second(&shared.image_augmented),
                scale,
                &alone,
            ),
            info_nce(
                &second(&specific.text_augmented),
                &specific.image,
                scale,
                &alone,
            ),
        ];
        let loss = terms.into_iter().map(|t| t.expect("a term"));
        let loss = loss.reduce(|a, b| (a + b).expect("a sum")).expect("terms");
        let value = loss.to_scalar::<f32>().expect("a number");
        let gradients = loss.backward().expect("a backward pass");
        let (gradients, _) = passes.backward(&embedded, gradients).expect("passes on");
        let of = |(name, var): (&str, &Var)| {
            let gradient = gradients
                .get(var)
                .unwrap_or_else(|| panic!("{name} has none"));
            let values = gradient.flatten_all().and_then(|g| g.to_vec1::<f32>());
            (name.to_owned(), values.expect("values"))
        };
        (value, parameters.trainable().map(of).collect())
    }

    #[test]
    fn several_passes_have_the_loss_and_the_gradient_of_one() {
        let (loss, expected) = gradients(1);
        for parts in [2, 3, 6] {
            let (in_parts, got) = gradients(parts);
            assert!((in_parts - loss).abs() < 1e-5, "{in_parts}, at once {loss}");
            assert_eq!(got.len(), expected.len());
            for ((name, got), (_, expected)) in got.iter().zip(&expected) {
                let length = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>().sqrt();
                let gap: Vec<f32> = got.iter().zip(expected).map(|(a, b)| a - b).collect();
                let (gap, length) = (length(&gap), length(expected));
                assert!(
                    gap < 1e-4 * length + 1e-6,
                    "{parts}, {name}: {gap} of {length}"
                );
            }
        }
    }

    #[test]
    fn a_configuration_divides_its_batch_evenly() {
        let recipe = include_str!("testing/plain.toml");
        let with = |accumulate: usize| {
            let line = format!("batch = 256\naccumulate = {accumulate}");
            let config: RunConfig =
                toml::from_str(&recipe.replace("batch = 256", &line)).expect("parses");
            config.check().err().map(|e| e.to_string())
        };
        assert_eq!(with(8), None);
        for bad in [0, 3] {
            let message = with(bad).expect("is refused");
            assert!(message.contains("`optimizer.accumulate`"), "{message}");
        }
    }
}
