//! What the head of a BMP promises.

/// How many bytes the rows of an uncompressed file need, and its sides; nothing where the head is
/// none that is known.
pub(super) fn least_bytes(bytes: &[u8]) -> Option<(u64, (u32, u32))> {
    /// Size of the heads of OS/2, which have shorter sides.
    const CORE: u32 = 12;
    const UNCOMPRESSED: [u32; 3] = [0, 3, 6];
    let long = |at: usize| {
        let bytes = bytes.get(at..)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*bytes))
    };
    let short = |at: usize| {
        let bytes = bytes.get(at..)?.first_chunk::<2>()?;
        Some(u16::from_le_bytes(*bytes))
    };
    let (width, height, bits, compression) = if long(14)? == CORE {
        (u32::from(short(18)?), u32::from(short(20)?), short(24)?, 0)
    } else {
        // Rows from the top have a negative height.
        let side = |at| Some((long(at)? as i32).unsigned_abs());
        (side(18)?, side(22)?, short(28)?, long(30)?)
    };
    let row = (u64::from(width) * u64::from(bits)).div_ceil(8);
    let least = if UNCOMPRESSED.contains(&compression) {
        // Any sides may stand there; they are checked later.
        row.saturating_mul(u64::from(height))
    } else {
        0
    };
    Some((least, (width, height)))
}
