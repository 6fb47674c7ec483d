//! Takes the two files of Swagger UI that the page at `/docs` needs out of their archive. They stay
//! packed: what a zip file holds becomes gzip by a head and a tail.

use std::{
    borrow::Cow,
    env,
    error::Error,
    io::{Cursor, Read as _},
    path::PathBuf,
};

use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::{CompressionMethod, ZipArchive};

/// RFC 1952: deflate, no flags, no time, best compression, an unknown system.
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut archive = ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED))?;
    for name in ["swagger-ui.css", "swagger-ui-bundle.js"] {
        let wanted = format!("/dist/{name}");
        let is_it =
            |path: Result<_, _>| path.is_ok_and(|path: Cow<'_, str>| path.ends_with(&wanted));
        let index = archive.file_names().position(is_it);
        let index = index.ok_or_else(|| format!("Swagger UI has no {wanted} any more"))?;
        let mut file = archive.by_index_raw(index)?;
        if file.compression() != CompressionMethod::DEFLATE {
            return Err(format!("{wanted} is packed by {}", file.compression()).into());
        }
        let mut gzip = GZIP_HEAD.to_vec();
        file.read_to_end(&mut gzip)?;
        gzip.extend(file.crc32().to_le_bytes());
        gzip.extend(u32::try_from(file.size())?.to_le_bytes());
        fs_err::write(out.join(format!("{name}.gz")), gzip)?;
    }
    Ok(())
}
