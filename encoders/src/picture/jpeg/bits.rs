//! Bits of an entropy-coded segment, first bit highest.

/// Reads bits up to the next marker, and zeros behind it, as libjpeg does.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    /// The next byte that is not in the buffer.
    at: usize,
    /// `count` bits, at the upper end. What is below them is either zero or the start of what comes next.
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
        self.refill_bytes();
    }

    #[cold]
    fn refill_bytes(&mut self) {
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
                    return;
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
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
