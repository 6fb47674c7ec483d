//! Bits of an entropy-coded segment, first bit highest.

/// Reads bits up to the next marker, and zeros behind it, as libjpeg does.
///
/// Loops work on a copy: one whose address nobody takes stays in registers. So what is rarely called
/// takes it by value, too.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a> {
    data: &'a [u8],
    /// The next byte that is not in the buffer.
    at: usize,
    /// `count` bits, at the upper end. What is below them is either zero or the start of what comes
    /// next.
    buffer: u64,
    count: u32,
    /// How many of them, the last ones, stand behind the marker.
    padding: u32,
    short: bool,
}

impl<'a> Bits<'a> {
    /// Reads `data` from `at` on.
    pub(super) fn new(data: &'a [u8], at: usize) -> Self {
        Self {
            data,
            at,
            buffer: 0,
            count: 0,
            padding: 0,
            short: false,
        }
    }

    /// Whether more was read than there is.
    pub(super) fn short(&self) -> bool {
        self.short || self.count < self.padding
    }

    /// Where the marker behind the segment, or the next byte, is. Bits that are left are dropped.
    pub(super) fn drop_rest(&mut self) -> usize {
        // Whole bytes in the buffer are followed by nothing but a marker in a file that is whole.
        let (at, data) = (self.at, self.data);
        *self = Self::new(data, at);
        at
    }

    /// Makes 32 bits ready, for one code and the number after it.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "once for every coefficient")]
    pub(super) fn fill(&mut self) {
        if self.count < 32 {
            self.refill();
        }
    }

    #[inline]
    fn refill(&mut self) {
        const LOW: u64 = 0x0101_0101_0101_0101;
        const HIGH: u64 = 0x8080_8080_8080_8080;
        if let Some(bytes) = self.data.get(self.at..).and_then(<[u8]>::first_chunk::<8>) {
            let word = u64::from_be_bytes(*bytes);
            // A byte of ones in `word` is a zero byte in its complement.
            if (!word).wrapping_sub(LOW) & word & HIGH == 0 {
                let whole = (64 - self.count) / 8;
                self.buffer |= word >> self.count;
                self.count += 8 * whole;
                self.at += whole as usize;
                return;
            }
        }
        *self = self.refilled_bytes();
    }

    #[cold]
    #[inline(never)]
    fn refilled_bytes(mut self) -> Self {
        while self.count <= 56 {
            let byte = match self.data.get(self.at..) {
                Some([0xff, 0, ..]) => {
                    self.at += 2;
                    0xff
                }
                Some([byte, ..]) if *byte != 0xff => {
                    self.at += 1;
                    *byte
                }
                _ => {
                    self.short |= self.count < self.padding;
                    self.padding += 64 - self.count;
                    self.count = 64;
                    return self;
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
        self
    }

    /// The next `n` bits, 1 to 17; they stay.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "once for every coefficient")]
    pub(super) fn peek(&self, n: u32) -> u32 {
        (self.buffer >> (64 - n)) as u32
    }

    /// Drops `n` bits that were made ready.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "once for every coefficient")]
    pub(super) fn skip(&mut self, n: u32) {
        self.buffer <<= n;
        self.count -= n;
    }

    /// The next `n` bits, 0 to 16.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "once for every coefficient")]
    pub(super) fn take(&mut self, n: u32) -> u32 {
        if n == 0 {
            return 0;
        }
        self.fill();
        let bits = self.peek(n);
        self.skip(n);
        bits
    }

    /// The number of size `n`, 0 to 15, that follows a code: its upper half is positive.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "once for every coefficient")]
    pub(super) fn number(&mut self, n: u32) -> i32 {
        extended(self.take(n), n)
    }
}

/// `bits` as a number of size `n`.
#[inline(always)]
#[allow(clippy::inline_always, reason = "once for every coefficient")]
pub(super) fn extended(bits: u32, n: u32) -> i32 {
    let value = bits as i32;
    if n > 0 && value < 1 << (n - 1) {
        value - (1 << n) + 1
    } else {
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stuffed_bytes_are_one_and_behind_a_marker_are_zeros() {
        // Long enough for the quick way, with stuffing in it, and a marker.
        let mut data: Vec<u8> = (1..40).collect();
        data.extend([0xff, 0, 0x81, 0xff, 0, 0xff, 0xd9, 0x55]);
        let expected: Vec<u8> = (1..40).chain([0xff, 0x81, 0xff]).collect();
        for width in [1, 3, 7, 8, 13, 16] {
            let mut bits = Bits::new(&data, 0);
            let total = 8 * expected.len() as u32;
            let mut read = 0;
            while read + width <= total {
                let value = bits.take(width);
                let by_bit = (read..read + width).fold(0, |value, at| {
                    let byte = u32::from(expected[at as usize / 8]);
                    value << 1 | byte >> (7 - at % 8) & 1
                });
                assert_eq!(value, by_bit, "{width} bits at {read}");
                read += width;
            }
            assert!(!bits.short());
            if read < total {
                bits.take(total - read);
            }
            assert!(!bits.short());
            assert_eq!(bits.take(5), 0);
            assert!(bits.short());
            assert_eq!(bits.drop_rest(), data.len() - 3);
        }
    }

    #[test]
    fn the_upper_half_of_a_size_is_positive() {
        let numbers: Vec<i32> = (0..8).map(|bits| extended(bits, 3)).collect();
        assert_eq!(numbers, [-7, -6, -5, -4, 4, 5, 6, 7]);
        assert_eq!(extended(0, 0), 0);
    }
}
