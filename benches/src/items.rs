//! Items around generated embeddings.

use embedding::{Embedding, Fingerprint, Modality, Spaces};
use engine::{Item, ItemId, Payload};

/// The spaces of a made-up model with shared embeddings only.
pub fn spaces(dim: usize) -> Spaces {
    Spaces {
        model: format!("generated-{dim}"),
        fingerprint: Fingerprint([dim as u8; 16]),
        shared_dim: dim,
        specific_text_dim: None,
        specific_image_dim: None,
        scoring: None,
    }
}

/// Picture number `i`, with as much beside its embedding as an indexed file has.
pub fn item(i: usize, shared: Embedding) -> Item {
    let id = ItemId::new(format!("pictures/{:03}/{i:07}.jpg", i % 1000));
    let mut item = Item::new(id.expect("a short path is an id"), Modality::Image, shared);
    item.source = Some(item.id.as_str().to_owned());
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&(i as u64).to_le_bytes());
    item.content_hash = Some(hash);
    item.payload = Payload::from_iter([
        ("name".to_owned(), format!("picture {i}").into()),
        ("width".to_owned(), 640.into()),
        ("height".to_owned(), 480.into()),
    ]);
    item
}
