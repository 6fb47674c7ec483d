//! What words alone say of items.

use super::*;
use crate::EngineError;

#[test]
fn a_label_alone_fits_what_stands_out_and_nothing_else() {
    let engine = crate::Engine::in_memory(crate::EngineConfig::default());
    let c = engine.create("c", &spaces()).expect("makes");
    let put = |name: String, row: &[f32]| {
        let shared = Embedding::new(row.to_vec()).expect("of unit length");
        crate::Item::new(id(&name), Modality::Image, shared)
    };
    // Four of nine classes have words, and a tenth of the items each.
    let rows = clusters(9, 20, 0.5, 3);
    let labels = names(&["a", "b", "c"]);
    let words = words(3, &labels);
    assert_eq!(
        c.label_spreads(&words, Modality::Image).expect("fits"),
        None
    );
    let items = rows
        .chunks(DIM)
        .enumerate()
        .map(|(i, row)| put(i.to_string(), row));
    c.upsert(items.collect()).expect("keeps");
    let spreads = c
        .label_spreads(&words, Modality::Image)
        .expect("fits")
        .expect("enough");
    let each = c
        .each_for_itself(&words, Modality::Image)
        .expect("fits")
        .expect("enough");
    let probe = clusters(9, 30, 0.5, 31);
    let (mut wrong, mut agree) = (0, 0);
    for (i, row) in probe.chunks(DIM).enumerate() {
        let cosines: Vec<f32> = labels
            .iter()
            .map(|label| {
                let all = words.predict_row(row);
                all.iter()
                    .find(|p| p.label == *label)
                    .expect("a label")
                    .score
                    .0
            })
            .collect();
        let is_none = spreads.is_none_of_these(&cosines);
        wrong += usize::from(is_none != (i / 30 >= 3));
        let fits = each.row_probabilities(row).iter().any(|p| *p >= 0.5);
        agree += usize::from(fits != is_none);
    }
    assert!(wrong <= 20, "{wrong} of 270");
    assert_eq!(agree, 270, "a label fits where not none of them does");
}

#[test]
fn words_told_each_for_itself_are_seen_among_the_modality_asked_for() {
    let engine = crate::Engine::in_memory(crate::EngineConfig::default());
    let c = engine.create("c", &spaces()).expect("makes");
    let put = |modality: Modality, i: usize, row: &[f32]| {
        let shared = Embedding::new(row.to_vec()).expect("of unit length");
        crate::Item::new(id(&format!("{modality}{i}")), modality, shared)
    };
    // Texts are narrower than pictures: their cosines with words lie elsewhere.
    let pictures = clusters(9, 20, 0.5, 3);
    let mut kept = kept(words(3, &names(&["a", "b", "c"])));
    kept.about.multi_label = true;
    let refused = c.head_for(&kept, Modality::Text).map(drop);
    assert!(matches!(refused, Err(EngineError::BadLesson { field, .. }) if field == "multi_label"));

    let rows = pictures.chunks(DIM).enumerate();
    c.upsert(rows.map(|(i, row)| put(Modality::Image, i, row)).collect())
        .expect("keeps");
    let of = |modality| c.head_for(&kept, modality).expect("fits").into_owned();
    assert_eq!(of(Modality::Text), of(Modality::Image), "no texts yet");

    let rows = clusters(9, 20, 0.1, 5);
    let rows = rows.chunks(DIM).enumerate();
    c.upsert(rows.map(|(i, row)| put(Modality::Text, i, row)).collect())
        .expect("keeps");
    for modality in Modality::ALL {
        let each = c.each_for_itself(&kept.head, modality).expect("fits");
        assert_eq!(Some(of(modality)), each);
    }
    assert_ne!(of(Modality::Text), of(Modality::Image));

    kept.about.multi_label = false;
    let same = c.head_for(&kept, Modality::Text).expect("fits");
    assert_eq!(*same, kept.head, "of labels told from each other");
}
