//! Drawings to pixels.

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{self, ImageHrefResolver, Options, Tree};
use thiserror::Error;

use super::rgba::RgbaPicture;

/// Why a drawing cannot be rasterized.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SvgError {
    /// It is no SVG, or one without a size.
    #[error("not a drawing that can be read")]
    Unreadable {
        /// Why.
        #[source]
        source: usvg::Error,
    },
    /// The wanted side is 0 or far too large.
    #[error("a drawing cannot fill {side} x {side} pixels")]
    BadSide {
        /// The wanted side.
        side: u32,
    },
}

/// Draws an SVG into `side` x `side` pixels: as large as fits, aspect kept, centered, on a
/// transparent background, with straight (not premultiplied) alpha.
///
/// Nothing outside the drawing is read: text is left out since there are no fonts, and an image
/// that names a file or an address is left out too.
///
/// # Errors
/// When `svg` is no SVG with a size, or `side` is 0 or does not fit into memory.
pub fn rasterize_svg(svg: &str, side: u32) -> Result<RgbaPicture, SvgError> {
    let tree =
        Tree::from_str(svg, &sealed_options()).map_err(|source| SvgError::Unreadable { source })?;
    let mut pixmap = Pixmap::new(side, side).ok_or(SvgError::BadSide { side })?;

    let size = tree.size();
    let scale = side as f32 / size.width().max(size.height());
    let left = (side as f32 - size.width() * scale) / 2.0;
    let top = (side as f32 - size.height() * scale) / 2.0;
    let transform = Transform::from_scale(scale, scale).post_translate(left, top);
    resvg::render(&tree, transform, &mut pixmap.as_mut());

    RgbaPicture::new(side, side, pixmap.take_demultiplied()).map_err(|_| SvgError::BadSide { side })
}

/// Options under which a drawing reaches neither the disk nor the network.
fn sealed_options() -> Options<'static> {
    Options {
        resources_dir: None,
        image_href_resolver: ImageHrefResolver {
            resolve_data: ImageHrefResolver::default_data_resolver(),
            // The default would open the file that the reference names.
            resolve_string: Box::new(|_, _| None),
        },
        ..Options::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixel(picture: &RgbaPicture, x: u32, y: u32) -> [u8; 4] {
        let start = ((y * picture.width() + x) * 4) as usize;
        picture.as_rgba()[start..start + 4]
            .try_into()
            .expect("four bytes")
    }

    fn drawing(width: u32, height: u32, body: &str) -> String {
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 {width} {height}">{body}</svg>"#
        )
    }

    #[test]
    fn a_red_circle_is_red_inside_and_transparent_in_the_corners() {
        let svg = drawing(10, 10, r##"<circle cx="5" cy="5" r="5" fill="#ff0000"/>"##);
        let picture = rasterize_svg(&svg, 32).expect("a good drawing");
        assert_eq!((picture.width(), picture.height()), (32, 32));
        for (x, y) in [(16, 16), (2, 16), (16, 29)] {
            assert_eq!(pixel(&picture, x, y), [255, 0, 0, 255], "at {x}, {y}");
        }
        for (x, y) in [(0, 0), (31, 0), (0, 31), (31, 31)] {
            assert_eq!(pixel(&picture, x, y)[3], 0, "at {x}, {y}");
        }
    }

    #[test]
    fn half_transparent_colors_keep_their_full_strength() {
        let svg = drawing(
            4,
            4,
            r##"<rect width="4" height="4" fill="#ff0000" fill-opacity=".5"/>"##,
        );
        let [red, green, blue, alpha] =
            pixel(&rasterize_svg(&svg, 8).expect("a good drawing"), 4, 4);
        assert_eq!([red, green, blue], [255, 0, 0]);
        assert!((127..=128).contains(&alpha), "alpha is {alpha}");
    }

    #[test]
    fn a_wide_drawing_is_centered_and_a_tall_one_too() {
        let wide = drawing(20, 10, r#"<rect width="20" height="10"/>"#);
        let wide = rasterize_svg(&wide, 40).expect("a good drawing");
        let tall = drawing(10, 20, r#"<rect width="10" height="20"/>"#);
        let tall = rasterize_svg(&tall, 40).expect("a good drawing");
        for along in [0, 20, 39] {
            for (across, alpha) in [(0, 0), (9, 0), (10, 255), (29, 255), (30, 0), (39, 0)] {
                assert_eq!(
                    pixel(&wide, along, across)[3],
                    alpha,
                    "wide at {along}, {across}"
                );
                assert_eq!(
                    pixel(&tall, across, along)[3],
                    alpha,
                    "tall at {across}, {along}"
                );
            }
        }
    }

    #[test]
    fn garbage_and_an_impossible_side_are_errors() {
        for garbage in ["", "hello", "<svg", "<html/>"] {
            let result = rasterize_svg(garbage, 8);
            assert!(
                matches!(result, Err(SvgError::Unreadable { .. })),
                "{garbage:?}"
            );
        }
        let svg = drawing(4, 4, "");
        assert!(matches!(
            rasterize_svg(&svg, 0),
            Err(SvgError::BadSide { side: 0 })
        ));
    }

    #[test]
    fn an_image_that_names_a_file_loads_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("inner.svg");
        let inner = drawing(4, 4, r#"<rect width="4" height="4"/>"#)
            .replace("<svg", r#"<svg width="4" height="4""#);
        fs_err::write(&file, inner).expect("a written file");
        let svg = drawing(
            4,
            4,
            &format!(
                r#"<image width="4" height="4" xlink:href="{}"/>"#,
                file.display()
            ),
        );
        // The same drawing does load it where nothing forbids that; otherwise this test says nothing.
        let open = Tree::from_str(&svg, &Options::default()).expect("a good drawing");
        assert!(
            open.root().has_children(),
            "the reference should work when it is allowed"
        );

        let picture = rasterize_svg(&svg, 8).expect("a good drawing");
        assert!(picture.as_rgba().iter().all(|&value| value == 0));
    }
}
