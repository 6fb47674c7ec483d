//! What examples have in common.

/// A red square of 8 by 8 pixels, a PNG in base64.
pub(crate) const PICTURE: &str = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEUlEQVR42mO4IyeHFTEMLQ\
    kAid1GAQVcagkAAAAASUVORK5CYII=";
