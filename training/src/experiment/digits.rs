//! Pictures of handwritten digits, on which the bank of [`super::memory_bank`] is not expected to help: the
//! control that a gain elsewhere is not one of the measure.

use std::path::Path;

use fs_err as fs;
use rand::{RngExt as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use super::memory_bank::MOST_SHOTS;
use crate::{TrainingError, parameters::normal};

/// Side of a picture.
const SIDE: usize = 8;
/// Pixels of a picture.
pub(super) const PIXELS: usize = SIDE * SIDE;
pub(super) const CLASSES: usize = 10;
/// Brightest pixel in the file.
const BRIGHTEST: f32 = 16.0;
/// One picture in so many is for testing alone.
const TESTED: usize = 3;
/// Pixels that a view is moved by at most, either way.
const SHIFT: i64 = 1;
/// Deviation of the noise on a view's pixels.
const NOISE: f32 = 0.2;

/// Pictures by class.
pub(super) struct Digits {
    training: Vec<Vec<[f32; PIXELS]>>,
    testing: Vec<Vec<[f32; PIXELS]>>,
}

impl Digits {
    /// Reads lines of 64 pixels of 0 to 16 and the digit, between commas: the digits of the UCI
    /// repository as scikit-learn packs them, unpacked.
    pub(super) fn read(file: &Path) -> Result<Self, TrainingError> {
        let mut digits = Self {
            training: vec![Vec::new(); CLASSES],
            testing: vec![Vec::new(); CLASSES],
        };
        let bad = |problem: String| TrainingError::Digits {
            file: file.to_owned(),
            problem,
        };
        for (i, line) in fs::read_to_string(file)?.lines().enumerate() {
            let wrong = || {
                let line = i + 1;
                bad(format!(
                    "line {line} is not 64 pixels of 0 to 16 and a digit, with commas between"
                ))
            };
            let numbers: Option<Vec<u8>> = line.split(',').map(|n| n.trim().parse().ok()).collect();
            let numbers = numbers.ok_or_else(wrong)?;
            let Some((class, pixels)) = numbers.split_last() else {
                return Err(wrong());
            };
            let pixels: [u8; PIXELS] = pixels.try_into().map_err(|_| wrong())?;
            let part = if i.is_multiple_of(TESTED) {
                &mut digits.testing
            } else {
                &mut digits.training
            };
            let class = part.get_mut(usize::from(*class)).ok_or_else(wrong)?;
            class.push(pixels.map(|pixel| f32::from(pixel) / BRIGHTEST));
        }
        let mut all = digits.training.iter().chain(&digits.testing);
        match all.position(|of| of.len() < MOST_SHOTS) {
            Some(class) => Err(bad(format!(
                "there are too few pictures of digit {}: expected {MOST_SHOTS} to learn from and as many to test on",
                class % CLASSES
            ))),
            None => Ok(digits),
        }
    }

    /// Another look at some picture of the training part, and one more at the same.
    pub(super) fn pair(&self, random: &mut ChaCha8Rng) -> [Vec<f32>; 2] {
        let of = &self.training[random.random_range(0..CLASSES)];
        let picture = &of[random.random_range(0..of.len())];
        [view(picture, random), view(picture, random)]
    }

    /// So many pictures of each class as they are, drawn from the training part, with their classes.
    pub(super) fn labeled(
        &self,
        per_class: usize,
        random: &mut ChaCha8Rng,
    ) -> (Vec<Vec<f32>>, Vec<usize>) {
        let drawn = self.training.iter().enumerate().flat_map(|(class, of)| {
            let mut order: Vec<&[f32; PIXELS]> = of.iter().collect();
            order.shuffle(random);
            let drawn: Vec<_> = order[..per_class]
                .iter()
                .map(|picture| (picture.to_vec(), class))
                .collect();
            drawn
        });
        drawn.unzip()
    }

    /// The testing part with its classes.
    pub(super) fn tested(&self) -> (Vec<Vec<f32>>, Vec<usize>) {
        let of_class = self.testing.iter().enumerate();
        of_class
            .flat_map(|(class, of)| of.iter().map(move |picture| (picture.to_vec(), class)))
            .unzip()
    }
}

/// The picture moved, brighter or darker, and noisy.
fn view(picture: &[f32; PIXELS], random: &mut ChaCha8Rng) -> Vec<f32> {
    let [down, right] = [(); 2].map(|()| random.random_range(-SHIFT..=SHIFT));
    let light = random.random_range(0.7..1.3_f32);
    let at = |place: i64| usize::try_from(place).ok().filter(|place| *place < SIDE);
    let pixel = |i: usize| {
        let row = at((i / SIDE) as i64 - down);
        let column = at((i % SIDE) as i64 - right);
        row.zip(column)
            .map_or(0.0, |(row, column)| picture[row * SIDE + column])
    };
    (0..PIXELS)
        .map(|i| light * pixel(i) + NOISE * normal(random))
        .collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn lines(n: usize) -> String {
        let line = |i: usize| format!("{}{}\n", "0,16,".repeat(PIXELS / 2), i % CLASSES);
        (0..n).map(line).collect()
    }

    fn read(contents: &str) -> Result<Digits, TrainingError> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("digits.csv");
        fs::write(&file, contents)?;
        Digits::read(&file)
    }

    #[test]
    fn every_picture_is_in_one_part_and_views_are_near_it() {
        let digits = read(&lines(1000)).expect("reads");
        let (tested, classes) = digits.tested();
        assert_eq!((tested.len(), classes.iter().max()), (334, Some(&9)));
        assert_eq!(tested[0][..3], [0.0, 1.0, 0.0]);
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let (drawn, classes) = digits.labeled(5, &mut random);
        assert_eq!((drawn.len(), classes[0], classes[49]), (50, 0, 9));
        let [a, b] = digits.pair(&mut random);
        assert!(a != b && a.len() == PIXELS);
        // Stripes stay stripes, moved or not.
        let even: f32 = a.iter().step_by(2).sum();
        let odd: f32 = a.iter().skip(1).step_by(2).sum();
        assert!((even - odd).abs() > 8.0, "{even} {odd}");
    }

    #[test]
    fn a_line_that_is_no_digit_is_named() {
        for line in [
            "1,2,3\n",
            "x\n",
            &lines(1).replace("16", "-1"),
            &lines(1).replace("16,0\n", "16,10\n"),
        ] {
            let refused = read(&(lines(3) + line)).err().expect("is refused");
            assert!(refused.to_string().contains("line 4"), "{refused}");
        }
        let refused = read(&lines(60)).err().expect("is refused");
        assert!(refused.to_string().contains("of digit"), "{refused}");
    }
}
