//! Attention of one head over one sequence, on packed keys and values.

use kernels::{Finish, Level, MatMul, Precision, Product, WHOLE};

use super::buffer::{Buffer, Shared};

/// Queries that go through together, in tiles: their weights stay in the second-level cache.
const BLOCK_TILES: usize = 4;

/// Attention as a function of joined rows `[queries | keys | values]`, each `heads * size` elements
/// of f32 or bf16.
pub(super) struct Attention {
    level: &'static Level,
    kernel: MatMul,
    /// Bytes of an element of the rows.
    element: usize,
    heads: usize,
    size: usize,
    causal: bool,
    /// Factor on the products of queries and keys.
    scale: f32,
}

/// Memory of one thread.
pub(super) struct Scratch {
    keys: Buffer,
    values: Buffer,
    weights: Buffer,
    inverses: Vec<f32>,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self {
            keys: Buffer::new(0),
            values: Buffer::new(0),
            weights: Buffer::new(0),
            inverses: Vec::new(),
        }
    }
}

/// One head of one sequence.
#[derive(Clone, Copy)]
pub(super) struct Head {
    /// First joined row of the sequence.
    pub rows: *const u8,
    /// Bytes from a row to the next.
    pub row_stride: usize,
    /// Which head.
    pub number: usize,
    /// Number of tokens.
    pub tokens: usize,
    /// First query, and number of queries.
    pub queries: (usize, usize),
    /// Element 0 of the first query's output over all heads: `heads * size` of them a row.
    pub out: *mut u8,
    /// Bytes from an output row to the next.
    pub out_stride: usize,
    /// Whether outputs are bf16, and not f32.
    pub out_bf16: bool,
}

impl Attention {
    /// `rows` is the precision of the joined rows: f32 or bf16.
    pub(super) fn new(
        level: &'static Level,
        rows: Precision,
        (heads, size): (usize, usize),
        causal: bool,
    ) -> Self {
        let (kernel, element) = match rows {
            Precision::F32 => (level.f32, 4),
            Precision::Int16 | Precision::Bf16 | Precision::Int8 => (level.bf16, 2),
        };
        Self {
            level,
            kernel,
            element,
            heads,
            size,
            causal,
            scale: (size as f32).powf(-0.5),
        }
    }

    /// Bytes of an element of the joined rows.
    pub(super) fn element(&self) -> usize {
        self.element
    }

    /// Elements per 4-byte word.
    fn per_word(&self) -> usize {
        4 / self.element
    }

    /// Writes the outputs of one head for its queries.
    ///
    /// # Safety
    /// The pointers of `head` are valid for its rows, and nobody else writes its columns of `out`.
    pub(super) unsafe fn run(&self, head: &Head, scratch: &mut Scratch) {
        let (size, tokens, width) = (self.size, head.tokens, self.level.panel());
        let row = self.heads * size * self.element;
        let start = head.number * size * self.element;
        let (key_words, value_words) = (
            size.div_ceil(self.per_word()),
            tokens.div_ceil(self.per_word()),
        );
        let value_panels = size.div_ceil(width);
        scratch
            .keys
            .reserve(tokens.div_ceil(width) * width * key_words * 4);
        scratch
            .values
            .reserve(value_panels * width * value_words * 4);
        let block = BLOCK_TILES * self.level.tile_rows;
        // A line of its own beyond the words that the second product reads.
        let weight_stride = tokens.div_ceil(16) * 64 + 64;
        scratch.weights.reserve(block * weight_stride);
        scratch.inverses.resize(block, 0.0);
        unsafe {
            self.pack_keys(head, start + row, scratch.keys.as_mut_ptr());
            self.pack_values(head, start + 2 * row, scratch.values.as_mut_ptr());
        }
        let weights = Shared(scratch.weights.as_mut_ptr());
        let (first, count) = head.queries;
        let mut done = 0;
        while done < count {
            let now = block.min(count - done);
            let seen = |query: usize| if self.causal { query + 1 } else { tokens };
            let query = first + done;
            let columns = seen(query + now - 1);
            let logits = Product {
                rows: unsafe { head.rows.add(query * head.row_stride + start) },
                row_stride: head.row_stride,
                words: key_words,
                segments: WHOLE,
                panels: scratch.keys.as_ptr(),
                columns,
                finish: Finish::plain(weights.at(0), weight_stride),
            };
            unsafe { (self.kernel)(&logits, 0..now, 0..columns.div_ceil(width)) };
            let padded = value_words * self.per_word();
            for i in 0..now {
                let to = weights.at(i * weight_stride).cast::<f32>();
                let visible = seen(query + i);
                unsafe {
                    scratch.inverses[i] =
                        (self.level.exponentials)(to, visible, padded, self.scale);
                    if self.element == 2 {
                        (self.level.narrow_bf16)(to, padded, to.cast());
                    }
                }
            }
            let finish = Finish {
                rows: scratch.inverses.as_ptr(),
                bf16: head.out_bf16,
                ..Finish::plain(
                    unsafe {
                        let element = if head.out_bf16 { 2 } else { 4 };
                        head.out
                            .add(done * head.out_stride + head.number * size * element)
                    },
                    head.out_stride,
                )
            };
            let mixed = Product {
                rows: weights.at(0),
                row_stride: weight_stride,
                words: value_words,
                segments: WHOLE,
                panels: scratch.values.as_ptr(),
                columns: size,
                finish,
            };
            unsafe { (self.kernel)(&mixed, 0..now, 0..value_panels) };
            done += now;
        }
    }

    /// Words of each key one below the other: `[panel][word][token]`.
    unsafe fn pack_keys(&self, head: &Head, start: usize, to: *mut u8) {
        let width = self.level.panel();
        let words = self.size.div_ceil(self.per_word());
        let at = |token: usize| {
            let from = unsafe { head.rows.add(token * head.row_stride + start) };
            let to = to.wrapping_add((token / width * words * width + token % width) * 4);
            (from, to)
        };
        // Squares of four words of four tokens, which turn in registers; panels hold whole squares.
        let (square_tokens, square_words) = (head.tokens / 4 * 4, words / 4 * 4);
        for token in (0..square_tokens).step_by(4) {
            let from: [*const u8; 4] = std::array::from_fn(|i| at(token + i).0);
            let to = at(token).1;
            for word in (0..square_words).step_by(4) {
                unsafe {
                    let square =
                        from.map(|from| from.add(4 * word).cast::<[u32; 4]>().read_unaligned());
                    for i in 0..4 {
                        let turned = square.map(|row| row[i]);
                        to.add(4 * (word + i) * width)
                            .cast::<[u32; 4]>()
                            .write_unaligned(turned);
                    }
                }
            }
        }
        // The second half of the last word, where a key has an odd number of bf16.
        let odd = !self.size.is_multiple_of(self.per_word());
        for token in 0..head.tokens {
            let (from, to) = at(token);
            let first = if token < square_tokens {
                square_words
            } else {
                0
            };
            for word in first..words {
                unsafe {
                    let value = from.add(4 * word).cast::<u32>().read_unaligned();
                    to.add(4 * word * width).cast::<u32>().write(value);
                }
            }
            if odd {
                unsafe {
                    let last = to.add(4 * (words - 1) * width).cast::<u32>();
                    last.write(last.read() & 0xffff);
                }
            }
        }
    }

    /// Values beside each other, those of as many tokens as fit into a word interleaved:
    /// `[panel][word of tokens][element]`.
    unsafe fn pack_values(&self, head: &Head, start: usize, to: *mut u8) {
        let width = self.level.panel();
        let words = head.tokens.div_ceil(self.per_word());
        let at = |token: usize| unsafe { head.rows.add(token * head.row_stride + start) };
        for panel in 0..self.size.div_ceil(width) {
            let columns = width.min(self.size - panel * width);
            for word in 0..words {
                unsafe {
                    let to = to.add((panel * words + word) * width * 4);
                    if self.element == 4 {
                        copy_words(at(word).add(panel * width * 4), to, columns);
                        continue;
                    }
                    let first = at(2 * word).add(panel * width * 2).cast::<u16>();
                    let to = to.cast::<[u16; 2]>();
                    if 2 * word + 1 < head.tokens {
                        let second = at(2 * word + 1).add(panel * width * 2).cast::<u16>();
                        for i in 0..columns {
                            to.add(i).write([
                                first.add(i).read_unaligned(),
                                second.add(i).read_unaligned(),
                            ]);
                        }
                    } else {
                        for i in 0..columns {
                            to.add(i).write([first.add(i).read_unaligned(), 0]);
                        }
                    }
                }
            }
        }
    }
}

/// Copies `words` words, in registers where they are a panel of the widest.
#[inline]
unsafe fn copy_words(from: *const u8, to: *mut u8, words: usize) {
    const WIDEST: usize = 32;
    unsafe {
        if words == WIDEST {
            let all = from.cast::<[u32; WIDEST]>().read_unaligned();
            to.cast::<[u32; WIDEST]>().write_unaligned(all);
        } else {
            std::ptr::copy_nonoverlapping(from, to, 4 * words);
        }
    }
}
