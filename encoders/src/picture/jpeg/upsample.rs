//! Colors back to full size, as libjpeg's "fancy upsampling" does it: each sample three quarters
//! of the nearest and one quarter of the next, along each axis that is halved; rounded once, up and
//! down in turns.

use super::frame::Component;

/// One row of a component in full size. Made for each row of the picture from the top.
pub(super) struct Upsampler {
    how: How,
    /// Samples in a row of the component that the picture covers, and such rows.
    width: usize,
    height: usize,
    sums: Vec<u16>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// Nothing to do.
    Copy,
    Across,
    Down,
    Both,
    /// Every sample this often across and down.
    Repeat(usize, usize),
}

impl Upsampler {
    /// For a component that has `across` times fewer columns and `down` times fewer rows than the
    /// picture.
    pub(super) fn new(component: &Component, across: usize, down: usize) -> Self {
        let (width, height) = (component.width, component.height);
        // Below three columns libjpeg does not interpolate across.
        let how = match (across, down) {
            (1, 1) => How::Copy,
            (2, 1) if width > 2 => How::Across,
            (1, 2) => How::Down,
            (2, 2) if width > 2 => How::Both,
            _ => How::Repeat(across, down),
        };
        Self {
            how,
            width,
            height,
            sums: vec![0; width],
        }
    }

    /// Row `y` of the picture from the component's `plane`, into at least its width in `out`.
    pub(super) fn row<'a>(
        &mut self,
        plane: &'a [u8],
        stride: usize,
        y: usize,
        out: &'a mut [u8],
    ) -> &'a [u8] {
        let width = self.width;
        let line = |y: usize| &plane[y * stride..][..width];
        // The nearest row, and the next: below for odd rows; the edges stand for what is beyond.
        let nearest = y / 2;
        let next = if y.is_multiple_of(2) {
            nearest.saturating_sub(1)
        } else {
            (nearest + 1).min(self.height - 1)
        };
        match self.how {
            How::Copy => return line(y),
            How::Across => {
                for (sum, sample) in self.sums.iter_mut().zip(line(y)) {
                    *sum = u16::from(*sample);
                }
                across::<1, 2, 2>(&self.sums, out);
            }
            How::Down => {
                let bias = if y.is_multiple_of(2) { 1 } else { 2 };
                for ((out, near), far) in out.iter_mut().zip(line(nearest)).zip(line(next)) {
                    *out = ((3 * u16::from(*near) + u16::from(*far) + bias) >> 2) as u8;
                }
            }
            How::Both => {
                for ((sum, near), far) in self.sums.iter_mut().zip(line(nearest)).zip(line(next)) {
                    *sum = 3 * u16::from(*near) + u16::from(*far);
                }
                across::<8, 7, 4>(&self.sums, out);
            }
            How::Repeat(across, down) => {
                for (out, sample) in out.chunks_mut(across).zip(line(y / down)) {
                    out.fill(*sample);
                }
            }
        }
        out
    }
}

/// Twice as many samples from at least two `sums`; even ones rounded with `EVEN`, odd ones with
/// `ODD`, all shifted by `SHIFT`.
#[inline]
fn across<const EVEN: u16, const ODD: u16, const SHIFT: u32>(sums: &[u16], out: &mut [u8]) {
    let pairs = out.as_chunks_mut::<2>().0;
    let last = sums.len() - 1;
    for (pair, [before, sum, after]) in pairs[1..].iter_mut().zip(sums.array_windows()) {
        *pair = [
            ((3 * sum + before + EVEN) >> SHIFT) as u8,
            ((3 * sum + after + ODD) >> SHIFT) as u8,
        ];
    }
    // At the ends the sample itself stands for the one beyond.
    let (first, second) = (sums[0], sums[1]);
    pairs[0] = [
        ((4 * first + EVEN) >> SHIFT) as u8,
        ((3 * first + second + ODD) >> SHIFT) as u8,
    ];
    pairs[last] = [
        ((3 * sums[last] + sums[last - 1] + EVEN) >> SHIFT) as u8,
        ((4 * sums[last] + ODD) >> SHIFT) as u8,
    ];
}
