//! What surrounds the first frame of a GIF.

use std::io::Cursor;

use gif::DecodeOptions;

/// Fills what the first frame leaves of the screen, `rgba` `[h, w, 4]`, as Pillow does: with the
/// transparent color where there is one, and with the first of the palette otherwise.
pub(super) fn fill_around(bytes: &[u8], width: u32, rgba: &mut [u8]) {
    // Only the frame's head is read here; whoever decoded the frame has said what is wrong with it.
    let Ok(mut reader) = DecodeOptions::new().read_info(Cursor::new(bytes)) else {
        return;
    };
    let Ok(Some(frame)) = reader.next_frame_info() else {
        return;
    };
    let transparent = frame.transparent;
    let rows = u32::from(frame.top)..u32::from(frame.top) + u32::from(frame.height);
    let columns = u32::from(frame.left)..u32::from(frame.left) + u32::from(frame.width);
    let Ok(palette) = reader.palette() else {
        return;
    };
    let index = usize::from(transparent.unwrap_or(0));
    // Past the end of a palette Pillow sees black.
    let color = palette.as_chunks::<3>().0.get(index);
    let [r, g, b] = color.copied().unwrap_or_default();
    let pixel = [r, g, b, if transparent.is_some() { 0 } else { u8::MAX }];
    for (y, row) in (0..).zip(rgba.chunks_exact_mut(4 * width as usize)) {
        for (x, out) in (0..).zip(row.as_chunks_mut::<4>().0) {
            if !(rows.contains(&y) && columns.contains(&x)) {
                *out = pixel;
            }
        }
    }
}
