//! A convolution forward and back, over plain floats.

use std::{mem::MaybeUninit, ops::Range};

use rayon::prelude::*;

use super::{
    Rooms, in_order,
    sizes::{Sizes, Unfolding},
};
use crate::cpu::{
    Level, Packed,
    dense::{Buffer, Element, Rows, Scattered, Scratch, outer, place as as_place, product},
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
            let mut wide = vec![0.0; weight.len() / unfolding.length.max(1) * filled];
            let segments = weight.chunks_exact(unfolding.length);
            for (to, from) in wide.chunks_exact_mut(filled).zip(segments) {
                to[..from.len()].copy_from_slice(from);
            }
            pack(&wide, unfolding.segments.len() * filled)
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

    /// Writes the outputs of some pictures, or adds them where `adds` is set. The room belongs to this convolution.
    pub fn run<E: Element>(
        &self,
        pictures: &[f32],
        room: &mut Buffer,
        out: &mut [MaybeUninit<f32>],
        adds: bool,
    ) {
        let room = room.elements::<E>(self.unfolding.elements(self.at_once()));
        let pictures = E::rows(pictures, pictures.len());
        self.sizes.unfold(&self.unfolding, &pictures, room);
        let product = |elements: &[E], out: &mut [MaybeUninit<f32>]| {
            let rows = Rows {
                elements,
                stride: self.unfolding.stride,
                segments: &self.segments,
            };
            product(rows, &self.columns, out, adds);
        };
        match self.unfolding.apart() {
            None => product(room, out),
            Some(apart) => {
                let outs = out.chunks_exact_mut(self.sizes.out_picture().max(1));
                let rooms = room.chunks_exact(apart.max(1));
                rooms.zip(outs).for_each(|(room, out)| product(room, out));
            }
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
    let (mut input_grad, adds) = match wanted {
        Wanted::Nothing => (Vec::new(), false),
        Wanted::Alone => (Vec::with_capacity(input.len()), false),
        Wanted::Onto(sums) => (sums, true),
    };
    // Summed in order: the result depends neither on timing nor on the number of threads.
    let share = sizes.n.div_ceil(SHARES).max(1);
    let length = (share * sizes.picture()).max(1);
    let places: Vec<&mut [MaybeUninit<f32>]> = if !wants {
        (0..sizes.n.div_ceil(share)).map(|_| &mut [][..]).collect()
    } else if adds {
        as_place(&mut input_grad).chunks_mut(length).collect()
    } else {
        let room = &mut input_grad.spare_capacity_mut()[..input.len()];
        room.chunks_mut(length).collect()
    };
    let (looks, next_look) = sizes.looks();
    let pass = Pass {
        sizes,
        looks,
        next_look,
        way: way.as_ref(),
        adds,
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
    /// Whether the gradient of the input is added to what is in its place.
    adds: bool,
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
        place: &mut [MaybeUninit<f32>],
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
            let at = (now.start - pictures.start) * sizes.picture();
            let place = match self.way {
                Some(_) => &mut place[at..][..now.len() * sizes.picture()],
                None => &mut [],
            };
            match self.way {
                None => {}
                Some(Way::Convolved(back)) => {
                    back.run::<E>(&room.grad, &mut room.unfolded, place, self.adds);
                }
                Some(Way::Folded(columns)) => {
                    self.fold(&narrow, columns, &mut room.patch_grads, place);
                }
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
        place: &mut [MaybeUninit<f32>],
    ) {
        let sizes = self.sizes;
        let patches = sizes.positions() * sizes.patch();
        let pictures = place.len() / sizes.picture().max(1);
        patch_grads.resize(pictures * patches, 0.0);
        let rows = Rows::whole(grad, sizes.out_c);
        product(rows, columns, as_place(patch_grads), false);
        let places = place.chunks_exact_mut(sizes.picture().max(1));
        for (place, patches) in places.zip(patch_grads.chunks_exact(patches.max(1))) {
            if !self.adds {
                place.fill(MaybeUninit::new(0.0));
            }
            // SAFETY: it was there before, or has just been written.
            #[allow(unsafe_code)]
            let sums = unsafe { place.assume_init_mut() };
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
