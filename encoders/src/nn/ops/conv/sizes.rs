//! The geometry of one call, and how pictures are laid out for its products.

use candle_core::{Result, bail};

use super::ConvShape;
use crate::cpu::dense::Element;

/// Pictures of at least so many positions are unfolded along their rows only: enough rows for a product.
const WIDE: usize = 64;

/// So many positions are worked on at once, of several pictures where one has fewer: enough for a sum over them.
const AT_ONCE: usize = 256;

/// All sizes of one call.
#[derive(Debug, Clone, Copy)]
pub(in crate::nn::ops) struct Sizes {
    pub n: usize,
    pub h: usize,
    pub w: usize,
    pub c: usize,
    pub out_h: usize,
    pub out_w: usize,
    pub out_c: usize,
    pub kernel: usize,
    pub stride: usize,
}

impl Sizes {
    pub fn new(
        shape: ConvShape,
        input: (usize, usize, usize, usize),
        weight: &[usize],
    ) -> Result<Self> {
        let (n, h, w, c) = input;
        let ConvShape { kernel, stride } = shape;
        let &[out_c, kh, kw, wc] = weight else {
            bail!("a convolution weight is [out, kernel, kernel, c], got {weight:?}");
        };
        if (kh, kw, wc) != (kernel, kernel, c) || kernel % 2 == 0 || stride == 0 {
            bail!("weight {weight:?} does not fit kernel {kernel}, stride {stride}, {c} channels");
        }
        if c == 0 || out_c == 0 {
            bail!("a convolution needs channels, got weight {weight:?}");
        }
        let (out_h, out_w) = (h.div_ceil(stride), w.div_ceil(stride));
        Ok(Self {
            n,
            h,
            w,
            c,
            out_h,
            out_w,
            out_c,
            kernel,
            stride,
        })
    }

    /// The convolution that brings gradients back, where the stride is 1.
    pub fn back(&self) -> Self {
        Self {
            c: self.out_c,
            out_c: self.c,
            ..*self
        }
    }

    /// Elements of one input picture.
    pub fn picture(&self) -> usize {
        self.h * self.w * self.c
    }

    /// Output positions of one picture.
    pub fn positions(&self) -> usize {
        self.out_h * self.out_w
    }

    /// Elements of one output picture.
    pub fn out_picture(&self) -> usize {
        self.positions() * self.out_c
    }

    /// Elements of one patch.
    pub fn patch(&self) -> usize {
        self.kernel * self.kernel * self.c
    }

    /// So many pictures are worked on at once; few enough for the cache.
    pub fn at_once(&self) -> usize {
        AT_ONCE.div_ceil(self.positions().max(1))
    }

    /// How they are laid out for products.
    pub fn unfolding<E: Element>(&self) -> Unfolding {
        let (k, s) = (self.kernel, self.stride);
        let strips = k > 1 && self.positions() >= WIDE;
        let length = if strips { k * self.c } else { self.patch() };
        // Whole cache lines.
        let stride = length.next_multiple_of(16 * E::PER_WORD);
        let (mut starts, mut rows) = (Vec::new(), 0);
        if strips {
            for phase in 0..s.min(k) {
                starts.push(rows);
                rows += (self.out_h + (k - 1 - phase) / s) * self.out_w;
            }
        } else {
            rows = self.positions();
        }
        let segment = |ky: usize| (starts[ky % s] + ky / s * self.out_w) * stride;
        let segments = if strips {
            (0..k).map(segment).collect()
        } else {
            vec![0]
        };
        Unfolding {
            length,
            stride,
            segments,
            starts,
            rows,
        }
    }

    /// The part of a kernel row that lies inside the picture at an output column: from its column of the
    /// picture on, from which of the kernel's columns to which.
    fn inside(&self, ox: usize) -> (usize, std::ops::Range<usize>) {
        let left = (ox * self.stride) as isize - (self.kernel / 2) as isize;
        let first = (-left).max(0) as usize;
        let last = self.kernel.min((self.w as isize - left).max(0) as usize);
        ((left + first as isize) as usize, first..last.max(first))
    }

    /// Calls `f(offset in patches, offset in picture, length)` for each run of channels that lies
    /// inside the picture; `row` is the offset from a patch to the next. Patches of neighbouring
    /// kernel columns are neighbours in the picture too, so a run spans up to `kernel * c` elements.
    fn for_each_run(&self, row: usize, mut f: impl FnMut(usize, usize, usize)) {
        let pad = self.kernel / 2;
        for oy in 0..self.out_h {
            for ox in 0..self.out_w {
                let patch = (oy * self.out_w + ox) * row;
                let (x, columns) = self.inside(ox);
                for ky in 0..self.kernel {
                    let y = (oy * self.stride + ky) as isize - pad as isize;
                    if y < 0 || y >= self.h as isize || columns.is_empty() {
                        continue;
                    }
                    let to = patch + (ky * self.kernel + columns.start) * self.c;
                    f(
                        to,
                        (y as usize * self.w + x) * self.c,
                        columns.len() * self.c,
                    );
                }
            }
        }
    }

    /// The same for rows that are unfolded along the picture's rows only.
    fn for_each_strip(&self, unfolding: &Unfolding, mut f: impl FnMut(usize, usize, usize)) {
        let pad = self.kernel / 2;
        for (phase, start) in unfolding.starts.iter().enumerate() {
            let rows = self.out_h + (self.kernel - 1 - phase) / self.stride;
            for row in 0..rows {
                let y = (row * self.stride + phase) as isize - pad as isize;
                if y < 0 || y >= self.h as isize {
                    continue;
                }
                for ox in 0..self.out_w {
                    let (x, columns) = self.inside(ox);
                    let to = (start + row * self.out_w + ox) * unfolding.stride;
                    f(
                        to + columns.start * self.c,
                        (y as usize * self.w + x) * self.c,
                        columns.len() * self.c,
                    );
                }
            }
        }
    }

    /// Unfolds pictures into rows of elements; padding stays as `room` has it (zero).
    pub fn unfold<E: Element>(&self, unfolding: &Unfolding, pictures: &[E], room: &mut [E]) {
        let rooms = room.chunks_exact_mut((unfolding.rows * unfolding.stride).max(1));
        for (picture, room) in pictures.chunks_exact(self.picture().max(1)).zip(rooms) {
            let mut copy = |to: usize, from: usize, len: usize| {
                room[to..to + len].copy_from_slice(&picture[from..from + len]);
            };
            if unfolding.starts.is_empty() {
                self.for_each_run(unfolding.stride, &mut copy);
            } else {
                self.for_each_strip(unfolding, &mut copy);
            }
        }
    }

    /// Sides of a picture with the padding that kernels see.
    fn padded(&self) -> (usize, usize) {
        let side = |out: usize| out.saturating_sub(1) * self.stride + self.kernel;
        (side(self.out_h), side(self.out_w))
    }

    /// Elements of a padded picture.
    pub fn padded_picture(&self) -> usize {
        let (h, w) = self.padded();
        h * w * self.c
    }

    /// Copies pictures into padded ones; padding stays as `room` has it (zero).
    pub fn pad<E: Element>(&self, pictures: &[E], room: &mut [E]) {
        let (h, w) = self.padded();
        let pad = self.kernel / 2;
        let (rows, columns) = (self.h.min(h - pad), self.w.min(w - pad) * self.c);
        let pictures = pictures.chunks_exact(self.picture().max(1));
        for (picture, room) in pictures.zip(room.chunks_exact_mut(self.padded_picture().max(1))) {
            for y in 0..rows {
                let from = &picture[y * self.w * self.c..][..columns];
                room[((y + pad) * w + pad) * self.c..][..columns].copy_from_slice(from);
            }
        }
    }

    /// The offset in padded pictures of the first element that each position sees, and from what it sees by one row
    /// of the kernel to what it sees by the next.
    pub fn looks(&self) -> (Vec<usize>, usize) {
        let (_, w) = self.padded();
        let mut looks = Vec::with_capacity(self.at_once() * self.positions());
        for picture in 0..self.at_once() {
            for oy in 0..self.out_h {
                for ox in 0..self.out_w {
                    let at = (oy * w + ox) * self.stride * self.c;
                    looks.push(picture * self.padded_picture() + at);
                }
            }
        }
        (looks, w * self.c)
    }

    /// Adds the patches of one picture back to where they came from.
    pub fn fold(&self, patches: &[f32], picture: &mut [f32]) {
        self.for_each_run(self.patch(), |from, to, len| {
            let sums = &mut picture[to..to + len];
            for (sum, x) in sums.iter_mut().zip(&patches[from..from + len]) {
                *sum += x;
            }
        });
    }
}

/// How pictures are laid out for products: a row for each position, of one segment that is the whole patch;
/// or, of wide pictures, of one segment for each row of the kernel. Then neighbours below each other share
/// what they see: a picture is copied once for each column of the kernel, and not for each of its elements.
#[derive(Debug)]
pub(in crate::nn::ops) struct Unfolding {
    /// Elements of a segment.
    pub length: usize,
    /// Elements from a row to the next.
    pub stride: usize,
    /// Where the segments of a row begin, in elements from its first.
    pub segments: Vec<usize>,
    /// Rows of the padded picture are grouped by their number modulo the stride (the phase): row `ky` of the kernel
    /// sees group `ky % stride`, from `ky / stride` on. Where each group begins, in rows; empty where whole patches are
    /// unfolded.
    starts: Vec<usize>,
    /// Rows of one picture.
    rows: usize,
}

impl Unfolding {
    /// Elements from a picture to the next, where each is a product of its own; `None` where all of their rows follow
    /// one another.
    pub fn apart(&self) -> Option<usize> {
        (!self.starts.is_empty()).then(|| self.elements(1))
    }

    /// Elements of so many pictures.
    pub fn elements(&self, pictures: usize) -> usize {
        pictures * self.rows * self.stride
    }
}
