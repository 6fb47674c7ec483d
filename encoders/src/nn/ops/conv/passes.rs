//! A convolution forward and back, over plain floats.

use std::ops::Range;

use kernels::Level;
use rayon::prelude::*;

use super::{
    Rooms, in_order,
    sizes::{Sizes, Unfolding},
};
use crate::cpu::{
    Packed,
    dense::{Buffer, Element, Rows, Scattered, Scratch, Target, outer, place as as_place, product},
};

/// Into so many parts of a batch the backward pass is split, at most.
const SHARES: usize = 8;

/// A convolution with its weights packed.
pub(in crate::nn::ops) struct Convolution {
    sizes: Sizes,
    unfolding: Unfolding,
    segments: Vec<usize>,
    columns: Packed,
}

impl Convolution {
    /// Of weights `[out_c, kernel, kernel, c]`.
    pub fn new<E: Element>(sizes: Sizes, weight: &[f32]) -> Self {
        let unfolding = sizes.unfolding::<E>();
        let filled = E::stride(unfolding.length);
        let pack = |weight: &[f32], inputs: usize| {
            Packed::new(Level::best(), E::PRECISION, (weight, inputs), None)
        };
        let columns = if filled == unfolding.length {
            pack(weight, sizes.patch())
        } else {
            // Each segment is filled up to whole words, as rows are.
            let mut padded = vec![0.0; weight.len() / unfolding.length.max(1) * filled];
            let segments = weight.chunks_exact(unfolding.length);
            for (to, from) in padded.chunks_exact_mut(filled).zip(segments) {
                to[..from.len()].copy_from_slice(from);
            }
            pack(&padded, unfolding.segments.len() * filled)
        };
        Self {
            sizes,
            segments: (unfolding.segments.iter())
                .map(|s| s * size_of::<E>())
                .collect(),
            unfolding,
            columns,
        }
    }

    /// The same in the other direction: of gradients of the outputs, where the stride is 1.
    fn back<E: Element>(sizes: &Sizes, weight: &[f32]) -> Self {
        Self::new::<E>(sizes.back(), &turned_kernel(sizes, weight))
    }

    /// Pictures that are worked on at once.
    pub fn at_once(&self) -> usize {
        self.sizes.at_once()
    }

    /// The outputs of some pictures. The room belongs to this convolution.
    pub fn run<E: Element>(&self, pictures: &[f32], room: &mut Buffer, mut out: Target<'_>) {
        let room = room.elements::<E>(self.unfolding.elements(self.at_once()));
        let pictures = E::rows(pictures, pictures.len());
        self.sizes.unfold(&self.unfolding, &pictures, room);
        let product = |elements: &[E], out: Target<'_>| {
            let rows = Rows {
                elements,
                stride: self.unfolding.stride,
                segments: &self.segments,
            };
            product(rows, &self.columns, out);
        };
        let Some(apart) = self.unfolding.apart() else {
            product(room, out);
            return;
        };
        let each = self.sizes.out_picture().max(1);
        for (i, room) in (0..out.len() / each).zip(room.chunks_exact(apart.max(1))) {
            product(room, out.part(i * each..(i + 1) * each));
        }
    }
}

/// What becomes of the gradient of the input.
pub(in crate::nn::ops) enum Wanted {
    /// Nobody asks for it.
    Nothing,
    /// It is returned.
    Alone,
    /// It is added to these, which are returned.
    Onto(Vec<f32>),
}

/// How a gradient gets from outputs to inputs.
enum Way {
    /// As a convolution.
    Convolved(Convolution),
    /// As patches, added up.
    Folded(Packed),
}

/// Gradients of the input (where wanted) and the weight `[out_c, kernel, kernel, c]`. `slopes` writes those of the
/// outputs for a range of elements.
pub(in crate::nn::ops) fn backward<E: Element>(
    sizes: &Sizes,
    input: &[f32],
    weight: &[f32],
    slopes: impl Fn(Range<usize>, &mut [f32]) + Sync,
    wanted: Wanted,
) -> (Option<Vec<f32>>, Vec<f32>) {
    let wants = !matches!(wanted, Wanted::Nothing);
    let way = wants.then(|| {
        if sizes.stride == 1 {
            Way::Convolved(Convolution::back::<E>(sizes, weight))
        } else {
            let weight = E::rows(weight, sizes.patch());
            Way::Folded(Packed::turned::<E>(Level::best(), &weight, sizes.patch()))
        }
    });
    let mut input_grad = match wanted {
        Wanted::Nothing => Vec::new(),
        Wanted::Alone => Vec::with_capacity(input.len()),
        Wanted::Onto(sums) => sums,
    };
    if input.is_empty() {
        return (wants.then_some(input_grad), vec![0.0; weight.len()]);
    }
    let adds = !input_grad.is_empty();
    // Summed in order: the result depends neither on timing nor on the number of threads.
    let share = sizes.n.div_ceil(SHARES).max(1);
    let length = share * sizes.picture();
    let places: Vec<Option<Target<'_>>> = if !wants {
        (0..sizes.n.div_ceil(share)).map(|_| None).collect()
    } else if adds {
        assert_eq!(
            input_grad.len(),
            input.len(),
            "a gradient is of its input's size"
        );
        let parts = input_grad.chunks_mut(length);
        parts.map(|part| Some(Target::Onto(part))).collect()
    } else {
        let parts = input_grad.spare_capacity_mut()[..input.len()].chunks_mut(length);
        parts.map(|part| Some(Target::New(part))).collect()
    };
    let (looks, next_look) = sizes.looks();
    let pass = Pass {
        sizes,
        looks,
        next_look,
        way: way.as_ref(),
        rooms: Rooms::default(),
    };
    let sums: Vec<Vec<f32>> = places
        .into_par_iter()
        .enumerate()
        .map(|(i, place)| {
            let pictures = i * share..sizes.n.min((i + 1) * share);
            pass.share::<E>(pictures, input, &slopes, place)
        })
        .collect();
    if wants && !adds {
        // SAFETY: each share wrote all of its place.
        #[allow(unsafe_code)]
        unsafe {
            input_grad.set_len(input.len());
        }
    }
    (wants.then_some(input_grad), in_order(sums))
}

/// What all parts of a backward pass have in common.
struct Pass<'a> {
    sizes: &'a Sizes,
    /// See [`Sizes::looks`].
    looks: Vec<usize>,
    next_look: usize,
    way: Option<&'a Way>,
    rooms: Rooms<Room>,
}

/// The memory of one task.
struct Room {
    padded: Buffer,
    unfolded: Buffer,
    grad: Vec<f32>,
    patch_grads: Vec<f32>,
    scratch: Scratch,
}

impl Pass<'_> {
    /// The gradient of the weight by some pictures; that of the input gets into its place.
    fn share<E: Element>(
        &self,
        pictures: Range<usize>,
        input: &[f32],
        slopes: &impl Fn(Range<usize>, &mut [f32]),
        mut place: Option<Target<'_>>,
    ) -> Vec<f32> {
        let sizes = self.sizes;
        let mut weight_grad = vec![0.0; sizes.out_c * sizes.patch()];
        let mut room = self.rooms.take(|| Room {
            padded: Buffer::new(0),
            unfolded: Buffer::new(0),
            grad: Vec::new(),
            patch_grads: Vec::new(),
            scratch: Scratch::default(),
        });
        for from in pictures.clone().step_by(sizes.at_once()) {
            let now = from..pictures.end.min(from + sizes.at_once());
            room.grad.resize(now.len() * sizes.out_picture(), 0.0);
            let of_outputs = now.start * sizes.out_picture()..now.end * sizes.out_picture();
            slopes(of_outputs, &mut room.grad);
            let narrow = E::rows(&room.grad, sizes.out_c);
            let part = &input[now.start * sizes.picture()..now.end * sizes.picture()];
            let padded = (room.padded).elements::<E>(sizes.at_once() * sizes.padded_picture());
            sizes.pad(&E::rows(part, part.len()), padded);
            let padded = &*padded;
            let along = sizes.kernel * sizes.c;
            for ky in 0..sizes.kernel {
                let seen = Scattered {
                    rows: now.len() * sizes.positions(),
                    columns: along,
                    row: |i: usize| &padded[self.looks[i] + ky * self.next_look..][..along],
                };
                let sums = (&mut weight_grad[ky * along..], sizes.patch());
                outer((&narrow, sizes.out_c), &seen, &mut room.scratch, sums);
            }
            let (Some(way), Some(place)) = (self.way, &mut place) else {
                continue;
            };
            let at = |picture: usize| (picture - pictures.start) * sizes.picture();
            let place = place.part(at(now.start)..at(now.end));
            match way {
                Way::Convolved(back) => back.run::<E>(&room.grad, &mut room.unfolded, place),
                Way::Folded(columns) => self.fold(&narrow, columns, &mut room.patch_grads, place),
            }
        }
        self.rooms.give(room);
        weight_grad
    }

    /// Gradients of outputs as patches, which are added to their place.
    fn fold<E: Element>(
        &self,
        grad: &[E],
        columns: &Packed,
        patch_grads: &mut Vec<f32>,
        mut place: Target<'_>,
    ) {
        let sizes = self.sizes;
        let patches = sizes.positions() * sizes.patch();
        let sums = place.sums();
        patch_grads.resize(sums.len() / sizes.picture() * patches, 0.0);
        let rows = Rows::whole(grad, sizes.out_c);
        product(rows, columns, Target::New(as_place(patch_grads)));
        let sums = sums.chunks_exact_mut(sizes.picture());
        for (sums, patches) in sums.zip(patch_grads.chunks_exact(patches)) {
            sizes.fold(patches, sums);
        }
    }
}

/// The kernel that brings gradients back: `[c, kernel, kernel, out_c]`, turned by 180 degrees.
fn turned_kernel(sizes: &Sizes, weight: &[f32]) -> Vec<f32> {
    let (taps, c, out) = (sizes.kernel * sizes.kernel, sizes.c, sizes.out_c);
    let mut turned = vec![0.0; weight.len()];
    for (o, weight) in weight.chunks_exact((taps * c).max(1)).enumerate() {
        for (tap, weight) in weight.chunks_exact(c.max(1)).enumerate() {
            for (channel, w) in weight.iter().enumerate() {
                turned[(channel * taps + taps - 1 - tap) * out + o] = *w;
            }
        }
    }
    turned
}
