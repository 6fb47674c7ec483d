//! Embeddings that are as hard to search as those of CLIP.

use embedding::{Embedding, Modality};

use crate::Random;

/// Directions that carry meaning: real embeddings have far fewer of them than elements.
const LATENT: usize = 48;
/// Groups of related concepts.
const TOPICS: usize = 60;
/// What pictures show and captions name.
const CONCEPTS: usize = 2000;
/// Cosine between the centers of the two cones: the modality gap.
const CONE_COSINE: f32 = 0.25;
/// Least dim: the latent directions and two cones need room.
pub const LEAST_DIM: usize = LATENT + 2;

/// A world of concepts, and the embeddings of pictures and captions of them.
///
/// Rows lie in narrow clusters (some far more frequent than others, as in photo collections) of
/// low intrinsic dimension, under a little noise in all directions, inside one cone per modality.
/// So captions are queries from another distribution than the pictures they look for.
#[derive(Debug, Clone)]
pub struct ClipLike {
    /// Orthonormal, `[LATENT + 2, dim]`; the last two are the cones.
    axes: Vec<Vec<f32>>,
    /// How far rows spread along each latent direction, of mean square 1.
    spectrum: Vec<f32>,
    concepts: Vec<Concept>,
    /// How much noise each element gets, of mean square 1.
    noise: Vec<f32>,
}

#[derive(Debug, Clone)]
struct Concept {
    /// `[LATENT]`.
    center: Vec<f32>,
    spread: f32,
    /// Frequency of this concept and all before it.
    cumulative: f32,
}

/// How one tower maps concepts into its cone.
struct Tower {
    cone: [f32; 2],
    /// Spread of the rows of one concept beside that of the concepts.
    within: f32,
    /// Length of the part that carries meaning, beside the cone's 1.
    meaning: f32,
    /// Length of the noise.
    noise: f32,
    /// By how much latent directions are stretched and squeezed.
    distortion: f32,
    /// Towers are noisy in different elements.
    noise_shift: usize,
}

impl Tower {
    fn of(modality: Modality) -> Self {
        match modality {
            Modality::Image => Self {
                cone: [1.0, 0.0],
                within: 0.60,
                meaning: 0.90,
                noise: 0.45,
                distortion: 0.0,
                noise_shift: 0,
            },
            Modality::Text => Self {
                cone: [CONE_COSINE, (1.0 - CONE_COSINE * CONE_COSINE).sqrt()],
                within: 0.55,
                meaning: 0.75,
                noise: 0.40,
                distortion: 0.3,
                noise_shift: 17,
            },
        }
    }
}

impl ClipLike {
    /// A world with embeddings of `dim` elements.
    ///
    /// # Panics
    /// When `dim` is below [`LEAST_DIM`].
    pub fn new(dim: usize, seed: u64) -> Self {
        assert!(
            dim >= LEAST_DIM,
            "dim is {dim}, expected at least {LEAST_DIM}"
        );
        let mut random = Random::new(seed);
        let axes = orthonormal(LATENT + 2, dim, &mut random);
        let spectrum = power_law(LATENT, -0.35);
        let direction = |random: &mut Random| -> Vec<f32> {
            spectrum.iter().map(|s| s * random.normal()).collect()
        };
        let topics: Vec<Vec<f32>> = (0..TOPICS).map(|_| direction(&mut random)).collect();
        let mut cumulative = 0.0;
        let concepts = (0..CONCEPTS).map(|rank| {
            cumulative += ((rank + 1) as f32).powf(-0.6);
            let topic = &topics[random.below(TOPICS)];
            let own = direction(&mut random);
            let center = topic.iter().zip(&own).map(|(t, o)| 0.7 * (t + o)).collect();
            let spread = (0.25 * random.normal()).exp();
            Concept {
                center,
                spread,
                cumulative,
            }
        });
        let concepts = concepts.collect();
        let mut noise = power_law(dim, -0.4);
        for i in (1..dim).rev() {
            noise.swap(i, random.below(i + 1));
        }
        Self {
            axes,
            spectrum,
            concepts,
            noise,
        }
    }

    /// `n` embeddings of one modality. Equal worlds and seeds give equal rows, and fewer rows are a
    /// prefix of more.
    pub fn rows(&self, modality: Modality, n: usize, seed: u64) -> Vec<Embedding> {
        let tower = Tower::of(modality);
        let mut random = Random::new(seed);
        // Nearby seeds are shifted copies of one stream otherwise.
        let mut random = Random::new(random.bits() ^ modality as u64);
        (0..n).map(|_| self.row(&tower, &mut random)).collect()
    }

    fn row(&self, tower: &Tower, random: &mut Random) -> Embedding {
        let dim = self.noise.len();
        let concept = self.concept(random);
        let noise_scale = tower.noise / (dim as f32).sqrt();
        let mut row: Vec<f32> = (0..dim)
            .map(|i| noise_scale * self.noise[(i + tower.noise_shift) % dim] * random.normal())
            .collect();
        let meaning_scale = tower.meaning / (LATENT as f32).sqrt();
        for (j, center) in concept.center.iter().enumerate() {
            let own = tower.within * concept.spread * self.spectrum[j] * random.normal();
            let stretch = 1.0 + tower.distortion * (j as f32).sin();
            add(
                &mut row,
                &self.axes[j],
                meaning_scale * stretch * (center + own),
            );
        }
        for (cone, axis) in tower.cone.iter().zip(&self.axes[LATENT..]) {
            add(&mut row, axis, *cone);
        }
        Embedding::normalized(row).expect("a generated row has a direction")
    }

    fn concept(&self, random: &mut Random) -> &Concept {
        let total = self.concepts[CONCEPTS - 1].cumulative;
        let at = random.uniform() * total;
        let found = self
            .concepts
            .partition_point(|concept| concept.cumulative <= at);
        &self.concepts[found.min(CONCEPTS - 1)]
    }
}

/// `(i + 1)^exponent`, scaled to mean square 1.
fn power_law(n: usize, exponent: f32) -> Vec<f32> {
    let mut values: Vec<f32> = (1..=n).map(|i| (i as f32).powf(exponent)).collect();
    let mean_square = values.iter().map(|x| x * x).sum::<f32>() / n as f32;
    for x in &mut values {
        *x /= mean_square.sqrt();
    }
    values
}

/// `n` random unit rows at right angles, by Gram and Schmidt.
fn orthonormal(n: usize, dim: usize, random: &mut Random) -> Vec<Vec<f32>> {
    let mut axes: Vec<Vec<f32>> = Vec::with_capacity(n);
    for _ in 0..n {
        let mut row: Vec<f32> = (0..dim).map(|_| random.normal()).collect();
        for axis in &axes {
            let along = dot(&row, axis);
            add(&mut row, axis, -along);
        }
        let length = dot(&row, &row).sqrt();
        for x in &mut row {
            *x /= length;
        }
        axes.push(row);
    }
    axes
}

fn add(row: &mut [f32], axis: &[f32], factor: f32) {
    for (x, a) in row.iter_mut().zip(axis) {
        *x += factor * a;
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean_cosine(a: &[Embedding], b: &[Embedding]) -> f32 {
        let cosines = a.iter().flat_map(|a| b.iter().map(move |b| a.cosine(b)));
        cosines.sum::<f32>() / (a.len() * b.len()) as f32
    }

    #[test]
    fn equal_seeds_give_equal_rows_and_others_give_others() {
        let world = ClipLike::new(64, 7);
        let rows = world.rows(Modality::Image, 20, 1);
        assert_eq!(rows, ClipLike::new(64, 7).rows(Modality::Image, 20, 1));
        assert_eq!(rows[..5], world.rows(Modality::Image, 5, 1));
        assert_ne!(rows, world.rows(Modality::Image, 20, 2));
        assert_ne!(rows, ClipLike::new(64, 8).rows(Modality::Image, 20, 1));
    }

    #[test]
    fn rows_have_near_neighbors_and_the_modalities_a_gap() {
        let world = ClipLike::new(128, 7);
        let images = world.rows(Modality::Image, 2000, 1);
        let queries = world.rows(Modality::Image, 40, 2);
        let captions = world.rows(Modality::Text, 40, 2);
        let nearest = |q: &Embedding| images.iter().map(|i| q.cosine(i)).fold(-1.0, f32::max);
        let nearest = queries.iter().map(nearest).sum::<f32>() / 40.0;
        let (within, across) = (
            mean_cosine(&queries, &images),
            mean_cosine(&captions, &images),
        );
        assert!(nearest > within + 0.15, "nearest {nearest}, any {within}");
        assert!(within > across + 0.2, "within {within}, across {across}");
    }
}
