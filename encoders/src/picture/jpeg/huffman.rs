//! Huffman tables.

use super::JpegError;
use super::bits::{Bits, extended};

/// Codes of up to this many bits are looked up.
const FAST_BITS: u32 = 10;

/// One table, made for reading.
pub(super) struct Huffman {
    /// By the next [`FAST_BITS`] bits: length of the code and symbol; length 0 for longer codes.
    fast: [(u8, u8); 1 << FAST_BITS],
    /// By the same bits, where a code and the number behind it fit: the number, the zeros before
    /// it, and the length of both; length 0 otherwise.
    whole: [(i16, u8, u8); 1 << FAST_BITS],
    /// By length: the first code that is longer, as 16 bits.
    ends: [u32; 17],
    /// By length: what to add to a code to get the place of its symbol.
    offsets: [i32; 17],
    symbols: [u8; 256],
}

impl Huffman {
    /// A table of the symbols of all codes, of which `counts[n]` have `n + 1` bits.
    pub(super) fn new(counts: &[u8; 16], listed: &[u8]) -> Result<Box<Self>, JpegError> {
        let mut table = Box::new(Self {
            fast: [(0, 0); 1 << FAST_BITS],
            whole: [(0, 0, 0); 1 << FAST_BITS],
            ends: [0; 17],
            offsets: [0; 17],
            symbols: [0; 256],
        });
        for (symbol, listed) in table.symbols.iter_mut().zip(listed) {
            *symbol = *listed;
        }
        let (mut code, mut place) = (0_u32, 0_usize);
        for (length, count) in (1..).zip(counts) {
            let count = u32::from(*count);
            table.offsets[length as usize] = place as i32 - code as i32;
            if code + count > 1 << length {
                return Err(JpegError::BadHuffman);
            }
            for _ in 0..count {
                if length <= FAST_BITS {
                    let symbol = table.symbols[place & 255];
                    let free = FAST_BITS - length;
                    let first = (code << free) as usize;
                    table.fast[first..first + (1 << free)].fill((length as u8, symbol));
                }
                (code, place) = (code + 1, place + 1);
            }
            table.ends[length as usize] = code << (16 - length);
            code <<= 1;
        }
        for bits in 0..table.fast.len() {
            let (length, symbol) = table.fast[bits];
            let (zeros, size) = (symbol >> 4, u32::from(symbol & 15));
            let both = u32::from(length) + size;
            if length > 0 && size > 0 && both <= FAST_BITS {
                let number = (bits as u32 >> (FAST_BITS - both)) & ((1 << size) - 1);
                table.whole[bits] = (extended(number, size) as i16, zeros, both as u8);
            }
        }
        Ok(table)
    }

    /// Whether every symbol can be the size of a DC number.
    pub(super) fn serves_dc(&self) -> bool {
        self.symbols.iter().all(|symbol| *symbol <= 15)
    }

    /// The next symbol; 0 where the bits are no code.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "once for every coefficient")]
    pub(super) fn symbol(&self, bits: &mut Bits<'_>) -> u8 {
        bits.fill();
        let (length, symbol) = self.fast[bits.peek(FAST_BITS) as usize];
        if length > 0 {
            bits.skip(u32::from(length));
            return symbol;
        }
        let (length, symbol) = self.long(bits.peek(16));
        bits.skip(length);
        symbol
    }

    /// A number, and the zeros before it, if both were looked up at once.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "once for every coefficient")]
    pub(super) fn whole(&self, bits: &mut Bits<'_>) -> Option<(i16, u8)> {
        bits.fill();
        let (number, zeros, length) = self.whole[bits.peek(FAST_BITS) as usize];
        if length == 0 {
            return None;
        }
        bits.skip(u32::from(length));
        Some((number, zeros))
    }

    /// Length and symbol of the code at the start of 16 bits, which is longer than [`FAST_BITS`].
    #[cold]
    #[inline(never)]
    fn long(&self, code: u32) -> (u32, u8) {
        for length in FAST_BITS + 1..=16 {
            if code < self.ends[length as usize] {
                let place = (code >> (16 - length)) as i32 + self.offsets[length as usize];
                return (length, self.symbols[place as usize & 255]);
            }
        }
        // As libjpeg, which has read one bit too many when it notices.
        (17, 0)
    }
}
