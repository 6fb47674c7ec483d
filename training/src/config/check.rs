//! Which values a run can work with.

use super::{
    AugmentConfig, CaptionConfig, ImageSection, LoraConfig, ModelSection, OptimizerConfig,
    RunConfig, Validation,
};
use crate::{TrainingError, objective::gamma::GammaConfig, pairs::validate, words::ENGLISH};

/// The key, whether its value will do, and what it may hold.
type Rule = (&'static str, bool, &'static str);

const AT_LEAST_1: &str = "at least 1";
const SHARE: &str = "between 0 and 1";
const SPREAD: &str = "a number of at least 0";

/// # Errors
/// When a value is out of range; the message names its key.
pub fn check(config: &RunConfig) -> Result<(), TrainingError> {
    let captions = &config.captions;
    let words = [
        (
            "data.skin_tone_weight",
            is_spread(config.data.skin_tone_weight),
            SPREAD,
        ),
        (
            "data.style_weights",
            config.data.style_weights.values().all(|w| is_spread(*w)),
            SPREAD,
        ),
        ("captions.tag_share", is_share(captions.tag_share), SHARE),
        ("captions.tags_from", is_share(captions.tags_from), SHARE),
        (
            "captions.carrier_share",
            is_share(captions.carrier_share),
            SHARE,
        ),
        (
            "captions.translations_from",
            is_share(captions.translations_from),
            SHARE,
        ),
    ];
    config.objective.latent.check()?;
    let separates = config.objective.latent.separation > 0.0;
    let specific = (
        "model.specific",
        config.model.specific || !separates,
        "true where objective.latent.separation is above 0",
    );
    let rules = model(&config.model)?.into_iter().chain([specific]);
    let rules = rules
        .chain(contrast(config.objective.contrast.as_ref()))
        .chain(optimizer(&config.optimizer))
        .chain(words)
        .chain(pairs(config))
        .chain(stop(config))
        .chain(languages(config))
        .chain(augment(&config.augment));
    for (key, holds, expected) in rules {
        if !holds {
            return Err(TrainingError::Value { key, expected });
        }
    }
    Ok(())
}

fn is_share(x: f64) -> bool {
    (0.0..=1.0).contains(&x)
}

fn is_spread(x: f64) -> bool {
    x.is_finite() && x >= 0.0
}

/// Heads share the width evenly.
fn are_heads_of(width: usize, heads: usize) -> bool {
    heads > 0 && width.is_multiple_of(heads)
}

fn model(m: &ModelSection) -> Result<Vec<Rule>, TrainingError> {
    if m.from.is_some() {
        let of_folder = "left out where model.from is given: the folder says it";
        let mut rules = vec![
            ("model.dim", m.dim == 0, of_folder),
            ("model.image", m.image.is_none(), of_folder),
            ("model.text", m.text.is_none(), of_folder),
            (
                "model.layer_decay",
                m.layer_decay > 0.0 && m.layer_decay <= 1.0,
                "above 0, at most 1",
            ),
        ];
        if let Some(lora) = &m.lora {
            let all = LoraConfig::all();
            rules.extend([
                ("model.lora.rank", lora.rank > 0, AT_LEAST_1),
                (
                    "model.lora.alpha",
                    lora.alpha.is_finite() && lora.alpha > 0.0,
                    "a number above 0",
                ),
                (
                    "model.lora.targets",
                    !lora.targets.is_empty() && lora.targets.iter().all(|t| all.contains(t)),
                    "some of q_proj, k_proj, v_proj and out_proj",
                ),
            ]);
        }
        return Ok(rules);
    }
    let (of_images, text) = m.towers()?;
    let tuned = !m.freeze.is_empty() || m.lora.is_some() || m.layer_decay < 1.0;
    let rules = vec![
        (
            "model.from",
            !tuned,
            "given where freeze, lora or layer_decay are",
        ),
        ("model.dim", m.dim > 0, AT_LEAST_1),
        (
            "model.text.vocabulary",
            text.vocabulary >= 514,
            "at least 514",
        ),
        (
            "model.text.context_length",
            text.context_length >= 3,
            "at least 3: two tokens are special",
        ),
        ("model.text.width", text.width > 0, AT_LEAST_1),
        ("model.text.layers", text.layers > 0, AT_LEAST_1),
        (
            "model.text.heads",
            are_heads_of(text.width, text.heads),
            "a divisor of model.text.width",
        ),
    ];
    Ok(rules.into_iter().chain(image(of_images)).collect())
}

fn image(image: &ImageSection) -> Vec<Rule> {
    let channels = |each: &[usize]| !each.is_empty() && !each.contains(&0);
    let list = "a list of at least one number, each at least 1";
    match image {
        ImageSection::Residual {
            image_size,
            stem,
            stages,
            blocks,
            width,
        } => vec![
            ("model.image.image_size", *image_size > 0, AT_LEAST_1),
            ("model.image.stem", channels(stem), list),
            ("model.image.stages", channels(stages), list),
            ("model.image.blocks", *blocks > 0, AT_LEAST_1),
            ("model.image.width", *width > 0, AT_LEAST_1),
        ],
        ImageSection::Vit {
            image_size,
            patch_size,
            width,
            layers,
            heads,
        } => vec![
            ("model.image.image_size", *image_size > 0, AT_LEAST_1),
            (
                "model.image.patch_size",
                *patch_size > 0 && image_size.is_multiple_of(*patch_size),
                "a divisor of model.image.image_size",
            ),
            ("model.image.width", *width > 0, AT_LEAST_1),
            ("model.image.layers", *layers > 0, AT_LEAST_1),
            (
                "model.image.heads",
                are_heads_of(*width, *heads),
                "a divisor of model.image.width",
            ),
        ],
    }
}

fn pairs(config: &RunConfig) -> Vec<Rule> {
    let (data, augment) = (&config.data, &config.augment);
    let of_pairs = !data.pairs.is_empty();
    let still = AugmentConfig {
        crop: augment.crop,
        mirror_share: augment.mirror_share,
        ..AugmentConfig::STILL
    };
    let whole_share =
        |[smallest, largest]: [f32; 2]| smallest > 0.0 && smallest <= largest && largest <= 1.0;
    let drawings_only = "left out where data.pairs is given: it is for manifests of drawings";
    vec![
        (
            "data.pairs",
            data.pairs.is_empty() != data.manifests.is_empty(),
            "given, or data.manifests in its place",
        ),
        (
            "data.validation",
            match &data.validation {
                None => true,
                Some(Validation::Share(share)) => of_pairs && *share > 0.0 && *share < 1.0,
                Some(Validation::Sources(sources)) => of_pairs && !sources.is_empty(),
            },
            "a share between 0 and 1 or sources of pairs, beside data.pairs",
        ),
        (
            "data.unreadable_share",
            is_share(data.unreadable_share),
            SHARE,
        ),
        (
            "data.held_out",
            !of_pairs || data.held_out.is_empty(),
            drawings_only,
        ),
        (
            "data.style_weights",
            !of_pairs || data.style_weights.is_empty(),
            drawings_only,
        ),
        (
            "data.languages",
            !of_pairs || data.languages.is_empty(),
            drawings_only,
        ),
        (
            "captions",
            !of_pairs || config.captions == CaptionConfig::default(),
            drawings_only,
        ),
        (
            "augment",
            !of_pairs || *augment == still,
            "crop and mirror_share alone where data.pairs is given",
        ),
        (
            "augment.crop",
            augment
                .crop
                .is_none_or(|crop| of_pairs && whole_share(crop)),
            "two shares of the area above 0, the smaller first, beside data.pairs",
        ),
    ]
}

fn stop(config: &RunConfig) -> Vec<Rule> {
    let Some(stop) = &config.stop else {
        return Vec::new();
    };
    let data = &config.data;
    let is_measured = if data.pairs.is_empty() {
        let known = [
            "recall_at_1",
            "recall_at_10",
            "base_recall_at_10",
            "base_carrier_recall_at_10",
            "keyword_hit_at_10",
        ];
        let parts = stop.metric.rsplit_once('.');
        parts.is_some_and(|(style, name)| {
            data.held_out.iter().any(|s| s == style) && known.contains(&name)
        })
    } else {
        let known = validate::names();
        data.validation.is_some() && known.contains(&stop.metric)
    };
    vec![
        (
            "stop.metric",
            is_measured,
            "a figure such as image_retrieval_recall@10 where there is data.validation, or such as \
             STYLE.recall_at_10 of a style of data.held_out",
        ),
        ("stop.patience", stop.patience > 0, AT_LEAST_1),
    ]
}

fn languages(config: &RunConfig) -> Vec<Rule> {
    let languages = &config.data.languages;
    let share = config.captions.translated_share;
    vec![
        (
            "data.languages",
            !languages.iter().any(|language| language == ENGLISH),
            "languages other than en",
        ),
        (
            "captions.translated_share",
            is_share(share) && (share == 0.0 || !languages.is_empty()),
            "between 0 and 1, and 0 where data.languages names none",
        ),
    ]
}

fn contrast(config: Option<&GammaConfig>) -> Vec<Rule> {
    let Some(config) = config else {
        return Vec::new();
    };
    let (decay, least) = (f64::from(config.gain_decay), f64::from(config.min_gain));
    vec![
        (
            "objective.contrast.gain_decay",
            decay > 0.5 && decay <= 1.0,
            "above 0.5, at most 1",
        ),
        ("objective.contrast.min_gain", is_share(least), SHARE),
    ]
}

fn optimizer(o: &OptimizerConfig) -> Vec<Rule> {
    vec![
        ("optimizer.batch", o.batch >= 2, "at least 2"),
        (
            "optimizer.accumulate",
            o.accumulate > 0 && o.batch.is_multiple_of(o.accumulate),
            "a divisor of optimizer.batch",
        ),
        (
            "optimizer.average",
            (0.0..1.0).contains(&o.average),
            "at least 0 and below 1",
        ),
        (
            "optimizer.steps",
            o.steps > o.warmup_steps,
            "more than warmup_steps",
        ),
        (
            "optimizer.learning_rate",
            o.learning_rate.is_finite() && o.learning_rate > 0.0,
            "a number above 0",
        ),
        (
            "optimizer.logit_scale_factor",
            is_spread(o.logit_scale_factor),
            SPREAD,
        ),
        ("optimizer.weight_decay", is_spread(o.weight_decay), SPREAD),
        ("optimizer.clip", o.clip > 0.0, "above 0"),
        (
            "optimizer.checkpoint_every",
            o.checkpoint_every > 0,
            AT_LEAST_1,
        ),
        ("optimizer.evaluate_every", o.evaluate_every > 0, AT_LEAST_1),
    ]
}

fn augment(a: &AugmentConfig) -> Vec<Rule> {
    let is_share = |x: f32| is_share(x.into());
    let is_spread = |x: f32| is_spread(x.into());
    let [smallest, largest] = a.scale;
    vec![
        ("augment.rotation", is_spread(a.rotation), SPREAD),
        (
            "augment.scale",
            smallest > 0.0 && smallest <= largest && largest.is_finite(),
            "two numbers above 0, the smaller first",
        ),
        ("augment.shift", is_spread(a.shift), SPREAD),
        ("augment.white_share", is_share(a.white_share), SHARE),
        ("augment.color", is_spread(a.color), SPREAD),
        ("augment.gray_share", is_share(a.gray_share), SHARE),
        ("augment.erase_share", is_share(a.erase_share), SHARE),
        ("augment.mirror_share", is_share(a.mirror_share), SHARE),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINI: &str = include_str!("../../recipes/mini/mini.toml");
    const VIT: &str = "kind = \"vit\"\nimage_size = 64\npatch_size = 8\nwidth = 192\nlayers = 3\n\
                       heads = 3\n\n[model.text]";

    fn parsed(toml: &str) -> RunConfig {
        toml::from_str(toml).expect("parses")
    }

    /// The recipe with a vision transformer.
    fn vit() -> String {
        let from = MINI.find("kind =").expect("an image tower");
        let to = MINI.find("[model.text]").expect("a text tower");
        MINI.replace(&MINI[from..to + "[model.text]".len()], VIT)
    }

    #[test]
    fn the_recipes_will_do() {
        check(&parsed(MINI)).expect("the recipe of the built-in model");
        check(&parsed(include_str!("../../recipes/mini/tune.toml"))).expect("its short form");
        let second = include_str!("../../recipes/mini/mini-2.toml");
        check(&parsed(second)).expect("the recipe of the second version");
        check(&parsed(&vit())).expect("the other tower");
    }

    #[test]
    fn the_example_of_the_docs_will_do() {
        let docs = include_str!("../../../docs/training.md");
        let from = docs.find("```toml\nseed = 1").expect("an example");
        let example = &docs[from + "```toml\n".len()..];
        let example = &example[..example.find("```").expect("its end")];
        let config = parsed(example);
        check(&config).expect("what is pasted works");
        assert!(config.stop.is_some() && config.model.from.is_some());
    }

    #[test]
    fn a_value_that_would_stop_or_spoil_the_run_is_refused_by_its_key() {
        for (key, line, bad) in [
            ("data.skin_tone_weight", "skin_tone_weight = 0.3", "-0.1"),
            ("data.skin_tone_weight", "skin_tone_weight = 0.3", "inf"),
            ("data.style_weights", "emojione-monotone = 0.5", "-1.0"),
            ("data.style_weights", "emojione-monotone = 0.5", "nan"),
            ("model.dim", "dim = 128", "0"),
            ("model.image.image_size", "image_size = 64", "0"),
            ("model.image.stem", "stem = [24, 48]", "[]"),
            ("model.image.stem", "stem = [24, 48]", "[24, 0]"),
            ("model.image.stages", "stages = [48, 96, 192]", "[]"),
            ("model.image.blocks", "blocks = 2", "0"),
            ("model.image.width", "width = 256", "0"),
            ("model.text.vocabulary", "vocabulary = 4096", "513"),
            ("model.text.context_length", "context_length = 32", "2"),
            ("model.text.width", "width = 192", "0"),
            ("model.text.layers", "layers = 3", "0"),
            ("model.text.heads", "heads = 3", "0"),
            ("model.text.heads", "heads = 3", "5"),
            ("optimizer.batch", "batch = 256", "1"),
            ("optimizer.steps", "steps = 1200", "100"),
            ("optimizer.learning_rate", "learning_rate = 2e-3", "inf"),
            (
                "optimizer.logit_scale_factor",
                "logit_scale_factor = 3.0",
                "nan",
            ),
            ("optimizer.weight_decay", "weight_decay = 0.1", "-0.1"),
            ("optimizer.clip", "clip = 1.0", "0.0"),
            ("optimizer.checkpoint_every", "checkpoint_every = 50", "0"),
            ("optimizer.evaluate_every", "evaluate_every = 250", "0"),
            ("captions.tag_share", "tag_share = 0.2", "1.2"),
            ("captions.tags_from", "tags_from = 0.4", "-0.4"),
            ("captions.carrier_share", "carrier_share = 0.5", "nan"),
            (
                "captions.translated_share",
                "carrier_share = 0.5",
                "0.5\ntranslated_share = 0.5",
            ),
            (
                "captions.translations_from",
                "carrier_share = 0.5",
                "0.5\ntranslations_from = 1.5",
            ),
            (
                "data.languages",
                "skin_tone_weight = 0.3",
                "0.3\nlanguages = [\"de\", \"en\"]",
            ),
            ("augment.rotation", "rotation = 15.0", "-15.0"),
            ("augment.scale", "scale = [0.7, 1.1]", "[1.1, 0.7]"),
            ("augment.scale", "scale = [0.7, 1.1]", "[0.0, 1.0]"),
            ("augment.scale", "scale = [0.7, 1.1]", "[1.0, inf]"),
            ("augment.shift", "shift = 0.1", "nan"),
            ("augment.white_share", "white_share = 0.6", "1.6"),
            ("augment.color", "color = 0.25", "inf"),
            ("augment.gray_share", "gray_share = 0.05", "-0.05"),
            ("augment.erase_share", "erase_share = 0.15", "2.0"),
            ("augment.mirror_share", "mirror_share = 0.3", "3.0"),
            (
                "augment.crop",
                "mirror_share = 0.3",
                "0.3\ncrop = [0.5, 1.0]",
            ),
            (
                "data.pairs",
                "skin_tone_weight = 0.3",
                "0.3\npairs = \"a.csv\"",
            ),
            (
                "data.validation",
                "skin_tone_weight = 0.3",
                "0.3\nvalidation = 0.1",
            ),
            (
                "data.unreadable_share",
                "skin_tone_weight = 0.3",
                "0.3\nunreadable_share = 2.0",
            ),
        ] {
            is_refused(MINI, key, line, bad);
        }
        let vit = vit();
        for (key, line, bad) in [
            ("model.image.image_size", "image_size = 64", "0"),
            ("model.image.patch_size", "patch_size = 8", "0"),
            ("model.image.patch_size", "patch_size = 8", "7"),
            (
                "model.image.heads",
                "heads = 3\n\n[model.text]",
                "0\n\n[model.text]",
            ),
            (
                "model.image.heads",
                "heads = 3\n\n[model.text]",
                "5\n\n[model.text]",
            ),
        ] {
            is_refused(&vit, key, line, bad);
        }
    }

    #[test]
    fn a_run_on_pairs_takes_nothing_that_is_for_drawings() {
        let from = MINI.find("[data]").expect("a section");
        let to = MINI.find("[model]").expect("a section");
        let until = MINI.find("[captions]").expect("a section");
        let data = "[data]\npairs = [\"a.csv\"]\nvalidation = 0.1\n";
        let augment = "[augment]\ncrop = [0.5, 1.0]\n";
        let good = [&MINI[..from], data, &MINI[to..until], augment].concat();
        check(&parsed(&good)).expect("all that pairs need");
        for (key, line, bad) in [
            ("data.validation", "validation = 0.1", "1.0"),
            ("data.validation", "validation = 0.1", "[]"),
            (
                "data.held_out",
                "validation = 0.1",
                "0.1\nheld_out = [\"x\"]",
            ),
            (
                "data.languages",
                "validation = 0.1",
                "0.1\nlanguages = [\"de\"]",
            ),
            (
                "data.style_weights",
                "validation = 0.1",
                "0.1\nstyle_weights = { a = 1.0 }",
            ),
            ("augment.crop", "crop = [0.5, 1.0]", "[0.0, 1.0]"),
            ("augment.crop", "crop = [0.5, 1.0]", "[0.5, 1.1]"),
            ("augment", "crop = [0.5, 1.0]", "[0.5, 1.0]\nrotation = 3.0"),
            (
                "captions",
                "crop = [0.5, 1.0]",
                "[0.5, 1.0]\n[captions]\ncarrier_share = 0.5",
            ),
        ] {
            is_refused(&good, key, line, bad);
        }
    }

    #[test]
    fn a_run_that_begins_with_a_folder_takes_no_sizes_and_one_from_nothing_no_tuning() {
        let from = MINI.find("[model]").expect("a section");
        let to = MINI.find("[optimizer]").expect("a section");
        let model = "[model]\nname = \"x\"\nfrom = \"clip\"\nfreeze = [\"image\"]\nlayer_decay = 0.8\n\
                     lora = { rank = 4, alpha = 8.0, targets = [\"q_proj\"] }\n";
        let good = [&MINI[..from], model, &MINI[to..]].concat();
        check(&parsed(&good)).expect("a model that is tuned");
        let lora = "lora = { rank = 4, alpha = 8.0, targets = [\"q_proj\"] }";
        for (key, line, bad) in [
            ("model.dim", "layer_decay = 0.8", "0.8\ndim = 3"),
            ("model.layer_decay", "layer_decay = 0.8", "0.0"),
            ("model.layer_decay", "layer_decay = 0.8", "1.1"),
            ("model.lora.rank", lora, "{ rank = 0, alpha = 8.0 }"),
            ("model.lora.alpha", lora, "{ rank = 4, alpha = -8.0 }"),
            (
                "model.lora.targets",
                lora,
                "{ rank = 4, alpha = 8.0, targets = [\"mlp\"] }",
            ),
        ] {
            is_refused(&good, key, line, bad);
        }
        for bad in ["0.5", "1.0\nfreeze = [\"text\"]"] {
            let bad = format!("128\nlayer_decay = {bad}");
            is_refused(MINI, "model.from", "dim = 128", &bad);
        }
    }

    #[test]
    fn a_run_stops_by_a_figure_that_it_measures() {
        let with = |metric: &str, patience: usize| {
            let stop = format!("\n[stop]\nmetric = {metric:?}\npatience = {patience}\n");
            let refused = check(&parsed(&format!("{MINI}{stop}"))).err();
            refused.map(|e| e.to_string())
        };
        assert_eq!(with("fxemoji.recall_at_10", 3), None);
        for (metric, patience, key) in [
            ("fxemoji.recall_at_10", 0, "`stop.patience`"),
            ("noto.recall_at_10", 3, "`stop.metric`"),
            ("fxemoji.recall", 3, "`stop.metric`"),
            ("image_retrieval_recall@10", 3, "`stop.metric`"),
        ] {
            let message = with(metric, patience).expect("is refused");
            assert!(message.contains(key), "{metric}: {message}");
        }
    }

    fn is_refused(toml: &str, key: &str, line: &str, bad: &str) {
        let (name, _) = line.split_once('=').expect("a key and a value");
        assert_eq!(toml.matches(line).count(), 1, "{line}");
        let wrong = toml.replace(line, &format!("{name}= {bad}"));
        let message = check(&parsed(&wrong)).expect_err(bad).to_string();
        assert!(message.contains(&format!("`{key}`")), "{bad}: {message}");
    }
}
