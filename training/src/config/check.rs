//! Which values a run can work with.

use super::{
    AugmentConfig, CaptionConfig, ImageSection, LoraConfig, ModelSection, OptimizerConfig,
    RunConfig, Validation,
};
use crate::{TrainingError, objective::gamma::GammaConfig, pairs::validate, words::ENGLISH};

/// The key, whether its value will do, and what it may hold.
pub(crate) type Rule = (&'static str, bool, &'static str);

pub(crate) const AT_LEAST_1: &str = "at least 1";
const SHARE: &str = "between 0 and 1";
pub(crate) const SPREAD: &str = "a number of at least 0";

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
    let latent_from = (
        "objective.latent_from",
        is_share(config.objective.latent_from),
        SHARE,
    );
    let separates = config.objective.latent.separation > 0.0;
    let specific = (
        "model.specific",
        config.model.specific || !separates,
        "true where objective.latent.separation is above 0",
    );
    let rules = model(&config.model)?
        .into_iter()
        .chain([specific, latent_from]);
    let rules = rules
        .chain(contrast(config.objective.contrast.as_ref()))
        .chain(optimizer(&config.optimizer))
        .chain(words)
        .chain(pairs(config))
        .chain(stop(config))
        .chain(languages(config))
        .chain(augment(&config.augment));
    all_hold(rules)
}

/// # Errors
/// For the first rule that does not hold.
pub(crate) fn all_hold(rules: impl IntoIterator<Item = Rule>) -> Result<(), TrainingError> {
    let broken = rules.into_iter().find(|(_, holds, _)| !holds);
    match broken {
        Some((key, _, expected)) => Err(TrainingError::Value { key, expected }),
        None => Ok(()),
    }
}

fn is_share(x: f64) -> bool {
    (0.0..=1.0).contains(&x)
}

pub(crate) fn is_spread(x: f64) -> bool {
    x.is_finite() && x >= 0.0
}

/// Heads share the width evenly.
pub(crate) fn are_heads_of(width: usize, heads: usize) -> bool {
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

pub(crate) fn image(image: &ImageSection) -> Vec<Rule> {
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

pub(crate) fn optimizer(o: &OptimizerConfig) -> Vec<Rule> {
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

pub(crate) fn augment(a: &AugmentConfig) -> Vec<Rule> {
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
        ("augment.blur_share", is_share(a.blur_share), SHARE),
        (
            "augment.crop",
            a.crop
                .is_none_or(|[least, most]| least > 0.0 && least <= most && most <= 1.0),
            "two shares of the area above 0, at most 1, the smaller first",
        ),
    ]
}

#[cfg(test)]
mod tests;
