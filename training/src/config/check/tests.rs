use super::*;

const PLAIN: &str = include_str!("../../testing/plain.toml");
const VIT: &str = "kind = \"vit\"\nimage_size = 64\npatch_size = 8\nwidth = 192\nlayers = 3\n\
                   heads = 3\n\n[model.text]";

fn parsed(toml: &str) -> RunConfig {
    toml::from_str(toml).expect("parses")
}

/// The recipe with a vision transformer.
fn vit() -> String {
    let from = PLAIN.find("kind =").expect("an image tower");
    let to = PLAIN.find("[model.text]").expect("a text tower");
    PLAIN.replace(&PLAIN[from..to + "[model.text]".len()], VIT)
}

#[test]
fn the_recipes_will_do() {
    check(&parsed(PLAIN)).expect("the plain run");
    check(&parsed(include_str!("../../../recipes/mini/tune.toml"))).expect("its short form");
    let builtin = include_str!("../../../recipes/mini/mini.toml");
    check(&parsed(builtin)).expect("the recipe of the built-in model");
    let again = include_str!("../../../recipes/mini/again.toml");
    check(&parsed(again)).expect("its second part");
    let more = include_str!("../../../recipes/mini/more.toml");
    check(&parsed(more)).expect("its third part");
    check(&parsed(&vit())).expect("the other tower");
}

#[test]
fn the_example_of_the_docs_will_do() {
    let docs = include_str!("../../../../docs/training.md");
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
            "augment.blur_share",
            "mirror_share = 0.3",
            "0.3\nblur_share = 1.1",
        ),
        (
            "augment.crop",
            "mirror_share = 0.3",
            "0.3\ncrop = [0.8, 0.2]",
        ),
        (
            "augment.crop",
            "mirror_share = 0.3",
            "0.3\ncrop = [0.0, 1.0]",
        ),
    ] {
        is_refused(PLAIN, key, line, bad);
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
fn a_run_on_drawings_takes_nothing_that_is_for_pairs() {
    for (key, line, bad) in [
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
        is_refused(PLAIN, key, line, bad);
    }
}

#[test]
fn a_run_on_pairs_takes_nothing_that_is_for_drawings() {
    let from = PLAIN.find("[data]").expect("a section");
    let to = PLAIN.find("[model]").expect("a section");
    let until = PLAIN.find("[captions]").expect("a section");
    let data = "[data]\npairs = [\"a.csv\"]\nvalidation = 0.1\n";
    let augment = "[augment]\ncrop = [0.5, 1.0]\n";
    let good = [&PLAIN[..from], data, &PLAIN[to..until], augment].concat();
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
    let from = PLAIN.find("[model]").expect("a section");
    let to = PLAIN.find("[optimizer]").expect("a section");
    let model = "[model]\nname = \"x\"\nfrom = \"clip\"\nfreeze = [\"image\"]\nlayer_decay = 0.8\n\
                 lora = { rank = 4, alpha = 8.0, targets = [\"q_proj\"] }\n";
    let good = [&PLAIN[..from], model, &PLAIN[to..]].concat();
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
        is_refused(PLAIN, "model.from", "dim = 128", &bad);
    }
}

#[test]
fn a_run_stops_by_a_figure_that_it_measures() {
    let with = |metric: &str, patience: usize| {
        let stop = format!("\n[stop]\nmetric = {metric:?}\npatience = {patience}\n");
        let refused = check(&parsed(&format!("{PLAIN}{stop}"))).err();
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
