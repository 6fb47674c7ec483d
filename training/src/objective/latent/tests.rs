use candle_core::Device;
use encoders::nn::unit_rows;

use super::*;
use crate::objective::{
    gradients::{check, rows, scalar},
    info_nce,
};

const N: usize = 4;
const DIM: usize = 5;

fn tensor<const M: usize>(rows: [[f64; M]; 2]) -> Tensor {
    Tensor::new(&rows, &Device::Cpu).expect("a tensor")
}

fn views(phase: f64) -> Views {
    let unit = |phase| unit_rows(&rows(N, DIM, phase)).expect("unit rows");
    Views {
        image: unit(phase),
        text: unit(phase + 1.0),
        image_augmented: Some(unit(phase + 2.0)),
        text_augmented: Some(unit(phase + 3.0)),
    }
}

/// Every view is a block of `rows`, so that a test can move all of them.
fn views_of(rows: &Tensor) -> candle_core::Result<Views> {
    let block = |i: usize| unit_rows(&rows.narrow(0, i * N, N)?);
    Ok(Views {
        image: block(0)?,
        text: block(1)?,
        image_augmented: Some(block(2)?),
        text_augmented: Some(block(3)?),
    })
}

fn positives() -> Positives {
    let identity = Tensor::eye(N, DType::F64, &Device::Cpu).expect("a mask");
    let several = [
        [1.0, 1.0, 0.0, 0.0],
        [1.0, 1.0, 0.0, 0.0],
        [0.0, 0.0, 1.0, 0.0],
        [0.0, 1.0, 0.0, 1.0],
    ];
    let several = Tensor::new(&several, &Device::Cpu).expect("a mask");
    Positives {
        cross: several.clone(),
        images: identity,
        texts: several,
    }
}

fn log_scale() -> Tensor {
    Tensor::new(1.2, &Device::Cpu).expect("a scalar")
}

fn loss(shared: &Views, specific: Option<&Views>, weights: LatentWeights) -> (f64, LatentReport) {
    let (loss, report) = evaluated(shared, specific, weights).expect("a loss");
    (scalar(&loss), report)
}

fn evaluated(
    shared: &Views,
    specific: Option<&Views>,
    weights: LatentWeights,
) -> Result<(Tensor, LatentReport), TrainingError> {
    let of = Latent {
        shared,
        specific,
        log_scale: &log_scale(),
        positives: &positives(),
    };
    latent_loss(&of, &weights)
}

fn by_candle(result: Result<Tensor, TrainingError>) -> candle_core::Result<Tensor> {
    result.map_err(candle_core::Error::wrap)
}

fn assert_near(value: f64, expected: f64) {
    assert!(
        (value - expected).abs() < 1e-6,
        "{value}, expected {expected}"
    );
}

#[test]
fn the_bridge_has_the_golden_values_of_its_closed_form() {
    // Image and text orthogonal, and the augmented image stays at the image.
    let (image, text) = (tensor([[1.0, 0.0]; 2]), tensor([[0.0, 1.0]; 2]));
    let bridge =
        |middle: &Tensor, t| scalar(&brownian_bridge(&image, &text, middle, t).expect("a value"));
    assert_near(bridge(&image, 0.25), 1.367_544_467_966_324);
    // At the text end it is nearer, and at the ends of time it is there.
    assert_near(bridge(&text, 0.25), 2.0 - 2.0 * 0.75 / 0.625_f64.sqrt());
    assert_near(bridge(&image, 1.0), 0.0);
    assert_near(bridge(&text, 0.0), 0.0);
    let equal = brownian_bridge(&image, &image, &image, 0.25).expect("a value");
    assert_near(scalar(&equal), 0.0);
}

#[test]
fn orthogonal_features_cost_nothing_and_equal_ones_cost_one_each() {
    let (x, y) = (tensor([[1.0, 0.0]; 2]), tensor([[0.0, 1.0]; 2]));
    let both = |image: &Tensor, text: &Tensor| Views {
        image: image.clone(),
        text: text.clone(),
        image_augmented: None,
        text_augmented: None,
    };
    let ortho = |a: &Views, b: &Views| scalar(&orthogonality(a, b).expect("a value"));
    assert_near(ortho(&both(&x, &y), &both(&y, &x)), 0.0);
    // A cosine of .6 counts as its square.
    let z = tensor([[0.6, 0.8]; 2]);
    assert_near(ortho(&both(&x, &y), &both(&z, &x)), 0.36);
    assert_near(ortho(&both(&x, &y), &both(&x, &y)), 2.0);
}

#[test]
fn uniformity_has_the_values_of_equal_and_of_orthogonal_items() {
    let same = tensor([[1.0, 0.0]; 2]);
    let apart = tensor([[1.0, 0.0], [0.0, 1.0]]);
    let of = |z: &Tensor| {
        let views = Views {
            image: z.clone(),
            text: z.clone(),
            image_augmented: None,
            text_augmented: None,
        };
        scalar(&uniformity(&views).expect("a value"))
    };
    // Two modalities of four pairs each, at distance 0 or at squared distance 2, over two items.
    assert_near(of(&same), 4.0_f64.ln());
    assert_near(of(&apart), (2.0 * (1.0 + (-4.0_f64).exp())).ln());
}

#[test]
fn consistent_geometry_costs_nothing_and_a_swap_costs_what_the_formula_says() {
    let views = views(0.0);
    let same = geometric_consistency(&views.image, &views.image).expect("a value");
    assert_near(scalar(&same), 0.0);
    let still = Views {
        image_augmented: Some(views.image.clone()),
        text_augmented: Some(views.text.clone()),
        ..views.clone()
    };
    let still = geometric_consistency_of_views(&still).expect("a value");
    assert_near(scalar(&still), 0.0);
    // Two items: cosines across are [[1, .6], [0, .8]], within images 0, within texts .6.
    let images = tensor([[1.0, 0.0], [0.0, 1.0]]);
    let texts = tensor([[1.0, 0.0], [0.6, 0.8]]);
    let value = geometric_consistency(&images, &texts).expect("a value");
    assert_near(scalar(&value), 2.0 * 0.36 / 2.0 + 2.0 * 0.36 / 2.0);
    // Images turn into the texts and the texts stay: within images .6 instead of 0, and the
    // cosines of pairs are 1 and .8 before, 1 and 1 after.
    let turned = Views {
        image: images,
        text: texts.clone(),
        image_augmented: Some(texts.clone()),
        text_augmented: Some(texts),
    };
    let value = geometric_consistency_of_views(&turned).expect("a value");
    assert_near(scalar(&value), 2.0 * 0.36 / 2.0 + 0.04 / 2.0);
}

#[test]
fn in_modal_terms_contrast_with_the_keys_of_the_augmented_view() {
    let shared = views(0.0);
    let mut positives = positives();
    positives.texts = positives.images.clone();
    let value = in_modal(&shared, &log_scale(), &positives).expect("a value");
    let mut expected = 0.0;
    for (items, keys) in [
        (&shared.image, &shared.image_augmented),
        (&shared.text, &shared.text_augmented),
    ] {
        let rows = items.to_vec2::<f64>().expect("rows");
        let keys = keys.as_ref().expect("a view").to_vec2::<f64>();
        let keys = keys.expect("rows");
        for (j, row) in rows.iter().enumerate() {
            let logit = |k: usize| -> f64 {
                let cosine: f64 = row.iter().zip(&keys[k]).map(|(a, b)| a * b).sum();
                1.2_f64.exp() * cosine
            };
            let sum: f64 = (0..N).map(|k| logit(k).exp()).sum();
            expected += (sum.ln() - logit(j)) / (2 * N) as f64;
        }
    }
    assert_near(scalar(&value), expected);
}

#[test]
fn the_weights_name_what_counts_and_the_report_says_its_values() {
    let (shared, specific) = (views(0.0), views(7.0));
    let weights = LatentWeights {
        in_modal: 1.0,
        separation: 0.1,
        bridge: 0.2,
        geometric: 0.3,
        geometric_views: 0.4,
        ..LatentWeights::default()
    };
    let (total, report) = loss(&shared, Some(&specific), weights);
    let of = |term: Option<f32>| f64::from(term.expect("a value"));
    let separation =
        of(report.orthogonality) + of(report.specific_in_modal) + of(report.uniformity);
    let expected = 0.5 * (of(report.cross_modal) + of(report.in_modal))
        + 0.1 * separation
        + 0.2 * of(report.bridge)
        + 0.3 * of(report.geometric)
        + 0.4 * of(report.geometric_views);
    assert_near(total, expected);
    let twice = in_modal(&specific, &log_scale(), &positives()).expect("a value");
    assert_near(of(report.specific_in_modal), 2.0 * scalar(&twice));
    let (only_in_modal, _) = loss(
        &shared,
        None,
        LatentWeights {
            in_modal: 0.5,
            ..LatentWeights::default()
        },
    );
    let mean = (of(report.cross_modal) + 0.5 * of(report.in_modal)) / 1.5;
    assert_near(only_in_modal, mean);
}

#[test]
fn without_weights_the_loss_is_info_nce_and_nothing_else_is_looked_at() {
    // Views of another shape would be an error if any term were computed.
    let unfit = Tensor::zeros((1, 1), DType::F64, &Device::Cpu).expect("a tensor");
    let shared = Views {
        image_augmented: Some(unfit.clone()),
        text_augmented: Some(unfit.clone()),
        ..views(0.0)
    };
    let specific = Views {
        image: unfit.clone(),
        text: unfit,
        image_augmented: None,
        text_augmented: None,
    };
    let (total, report) = loss(&shared, Some(&specific), LatentWeights::default());
    let plain = info_nce(
        &shared.image,
        &shared.text,
        &log_scale(),
        &positives().cross,
    );
    assert_near(total, scalar(&plain.expect("a loss")));
    let only = LatentReport {
        cross_modal: report.cross_modal,
        ..LatentReport::default()
    };
    assert_eq!(report, only);
    let bridge = LatentWeights {
        bridge: 1.0,
        ..LatentWeights::default()
    };
    let looked_at = evaluated(&shared, Some(&specific), bridge);
    assert!(looked_at.is_err(), "the views would do");
}

#[test]
fn a_term_asks_for_the_views_that_it_needs_and_for_no_others() {
    let off = LatentWeights::default();
    let on: [(&str, LatentWeights, bool); 5] = [
        (
            "in_modal",
            LatentWeights {
                in_modal: 1.0,
                ..off
            },
            true,
        ),
        (
            "separation",
            LatentWeights {
                separation: 1.0,
                ..off
            },
            true,
        ),
        ("bridge", LatentWeights { bridge: 1.0, ..off }, false),
        (
            "geometric",
            LatentWeights {
                geometric: 1.0,
                ..off
            },
            false,
        ),
        (
            "geometric_views",
            LatentWeights {
                geometric_views: 1.0,
                ..off
            },
            true,
        ),
    ];
    let without = |views: Views| Views {
        text_augmented: None,
        ..views
    };
    let (shared, specific) = (without(views(0.0)), without(views(7.0)));
    for (name, weights, needs_texts) in on {
        let result = evaluated(&shared, Some(&specific), weights);
        assert_eq!(result.is_err(), needs_texts, "{name}");
        if let Err(error) = result {
            let message = error.to_string();
            assert!(message.ends_with("augmented texts: give them or set its weight to 0"));
        }
    }
    let separation = LatentWeights {
        separation: 1.0,
        ..off
    };
    let refused = evaluated(&shared, None, separation).expect_err("no specific embeddings");
    assert_eq!(
        refused.to_string(),
        "the term separation needs specific embeddings: give them or set its weight to 0"
    );
}

#[test]
fn weights_are_read_from_a_table_and_checked() {
    let read: LatentWeights = toml::from_str("separation = 0.1").expect("weights");
    assert_eq!(
        read,
        LatentWeights {
            separation: 0.1,
            ..LatentWeights::default()
        }
    );
    assert!(toml::from_str::<LatentWeights>("seperation = 0.1").is_err());
    for wrong in ["bridge = -1.0", "geometric = nan", "bridge_t = 1.5"] {
        let weights: LatentWeights = toml::from_str(wrong).expect("weights");
        let message = weights.check().expect_err("is refused").to_string();
        let key = wrong.split(' ').next().expect("a key");
        assert!(message.contains(&format!("latent.{key}`")), "{message}");
    }
}

#[test]
fn gradients_of_every_term_equal_finite_differences() {
    let start = rows(4 * N, DIM, 0.3);
    let masks = positives();
    check(&start, |rows| {
        cross_modal(&views_of(rows)?, &log_scale(), &masks.cross)
    });
    check(&start, |rows| {
        by_candle(in_modal(&views_of(rows)?, &log_scale(), &masks))
    });
    check(&start, |rows| orthogonality(&views_of(rows)?, &views(7.0)));
    check(&start, |rows| orthogonality(&views(7.0), &views_of(rows)?));
    check(&start, |rows| uniformity(&views_of(rows)?));
    check(&start, |rows| {
        let views = views_of(rows)?;
        let middle = views.image_augmented.as_ref().expect("a view");
        brownian_bridge(&views.image, &views.text, middle, 0.25)
    });
    check(&start, |rows| {
        let views = views_of(rows)?;
        geometric_consistency(&views.image, &views.text)
    });
    check(&start, |rows| {
        by_candle(geometric_consistency_of_views(&views_of(rows)?))
    });
}

#[test]
fn the_gradient_of_the_whole_loss_equals_finite_differences() {
    let weights = LatentWeights {
        in_modal: 1.0,
        separation: 0.3,
        bridge: 0.5,
        bridge_t: 0.4,
        geometric: 0.2,
        geometric_views: 0.7,
    };
    check(&rows(8 * N, DIM, 0.3), |rows| {
        let shared = views_of(&rows.narrow(0, 0, 4 * N)?)?;
        let specific = views_of(&rows.narrow(0, 4 * N, 4 * N)?)?;
        let loss = evaluated(&shared, Some(&specific), weights);
        by_candle(loss.map(|(loss, _)| loss))
    });
    check(&log_scale(), |log_scale| {
        let of = Latent {
            shared: &views(0.0),
            specific: Some(&views(7.0)),
            log_scale,
            positives: &positives(),
        };
        by_candle(latent_loss(&of, &weights).map(|(loss, _)| loss))
    });
}
