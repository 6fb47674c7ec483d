//! Distillation as a whole, from a tiny random teacher on texts that are made here.

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use encoders::{SentenceFolder, nn::Form};
use training::{
    TrainingError, checkpoint,
    distill::{DistillConfig, Distillation, Report, StepReport, distill},
};

const TEACHER: &str = "sentence_mean";

fn teacher(name: &str) -> PathBuf {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/data");
    data.join(name)
}

const WORDS: [&str; 16] = [
    "a", "photo", "of", "the", "red", "cat", "dog", "on", "street", "house", "sea", "moon",
    "child", "beach", "rain", "balloon",
];

/// The texts with these numbers, three to six words each.
fn texts(numbers: std::ops::Range<usize>) -> Vec<String> {
    let text = |i: usize| {
        let words = (0..3 + i % 4).map(|place| WORDS[(i * 7 + i / 16 * place + place * 5) % 16]);
        words.collect::<Vec<_>>().join(" ")
    };
    numbers.map(text).collect()
}

/// A folder with texts and a configuration of them.
struct Case {
    folder: tempfile::TempDir,
    config: DistillConfig,
}

/// `changes` replace lines of the configuration by their beginnings.
fn try_case(teacher_name: &str, changes: &[(&str, &str)]) -> Result<Case, String> {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, numbers) in [("training", 0..96), ("held_out", 96..144)] {
        let lines = texts(numbers).into_iter();
        let lines = lines.map(|text| serde_json::json!({ "text": text }).to_string() + "\n");
        let file = folder.path().join(format!("{name}.jsonl"));
        std::fs::write(file, lines.collect::<String>()).expect("writes");
    }
    let mut toml = format!(
        "seed = 3\nteacher = '{}'\n\n[texts]\ntraining = '{data}/training.jsonl'\n\
         held_out = '{data}/held_out.jsonl'\n",
        teacher(teacher_name).display(),
        data = folder.path().display(),
    );
    toml.push_str(
        "\n[student]\nlayers = 2\nheads = 2\nwidth = 24\nmlp_width = 40\ncontext_length = 12\n\
         start = \"teacher\"\nlearn_words = true\nhalf_precision = false\n\
         \n[lesson]\nembedding = 1.0\nlogits = 0.0\nlogit_scale = 20.0\n\
         \n[lesson.attention]\nguide = \"amad_v2\"\nweight = 0.03\nlayers = \"uniform\"\n\
         \n[optimizer]\nbatch = 16\nsteps = 24\nwarmup_steps = 3\nlearning_rate = 3e-3\n\
         weight_decay = 0.01\nclip = 1.0\ncheckpoint_every = 5\n",
    );
    for (line, other) in changes {
        let found: Vec<&str> = toml.lines().filter(|l| l.starts_with(line)).collect();
        assert_eq!(found.len(), 1, "{line}");
        toml = toml.replace(found[0], other);
    }
    let config = toml::from_str(&toml).map_err(|error| error.to_string())?;
    Ok(Case { folder, config })
}

fn case(changes: &[(&str, &str)]) -> Case {
    try_case(TEACHER, changes).expect("a configuration")
}

impl Case {
    fn run(
        &self,
        folder: &str,
        until: usize,
    ) -> Result<(Vec<StepReport>, Option<Report>), TrainingError> {
        let mut steps = Vec::new();
        let folder = self.folder.path().join(folder);
        let report = distill(&self.config, &folder, until, &mut |step| {
            steps.push(step.clone());
        })?;
        Ok((steps, report))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Without what is taught of attention.
const WITHOUT_ATTENTION: [(&str, &str); 4] = [
    ("[lesson.attention]", ""),
    ("guide =", ""),
    ("weight =", ""),
    ("layers = \"uniform\"", ""),
];

#[test]
fn every_lesson_brings_the_student_nearer_to_its_teacher() {
    let mut lessons = vec![
        ("embedding alone", WITHOUT_ATTENTION.to_vec()),
        (
            "logits alone",
            [
                &WITHOUT_ATTENTION[..],
                &[("embedding", "embedding = 0.0"), ("logits", "logits = 1.0")],
            ]
            .concat(),
        ),
    ];
    let guides = ["one_to_one", "amad_v1", "amad_v2", "amad_v3", "amad_v4"];
    let lines = guides.map(|guide| format!("guide = {guide:?}"));
    for (guide, line) in guides.iter().zip(&lines) {
        lessons.push((guide, vec![("guide =", line)]));
    }
    for (name, changes) in lessons {
        let case = case(&changes);
        let (steps, report) = case.run("run", 24).expect(name);
        let (first, last) = (&steps[0], &steps[23]);
        assert!(
            last.embedding < 0.7 * first.embedding,
            "{name}: {first:?} to {last:?}"
        );
        for (before, after) in [
            (first.logits, last.logits),
            (first.attention, last.attention),
        ] {
            assert_eq!(before.is_some(), after.is_some());
            if let (Some(before), Some(after)) = (before, after) {
                assert!(after < before, "{name}: {first:?} to {last:?}");
            }
        }
        let report = report.expect("it is done");
        let (before, after) = (&report.beginning, &report.student);
        assert!(after.cosine > before.cosine, "{name}: {report:?}");
    }
}

/// The learned map begins as the identity, over maps that are padded to the longest text.
#[test]
fn the_third_variant_begins_as_the_second() {
    let first = |guide: &str| {
        let (steps, _) = case(&[("guide =", guide)]).run("run", 1).expect("a step");
        steps[0].attention.expect("it is taught")
    };
    let (second, third) = (first("guide = \"amad_v2\""), first("guide = \"amad_v3\""));
    assert!((second - third).abs() < 1e-4 * second, "{second}, {third}");
}

#[test]
fn a_resumed_run_ends_in_the_bytes_of_an_uninterrupted_one() {
    for guide in ["guide = \"amad_v2\"", "guide = \"amad_v3\""] {
        let case = case(&[("guide =", guide), ("steps =", "steps = 14")]);
        let (expected, whole) = case.run("whole", 14).expect("trains");
        let (mut seen, none) = case.run("parts", 8).expect("trains");
        assert!(
            none.is_none() && !case.path("parts/student").exists(),
            "it is not done"
        );
        let (rest, parts) = case.run("parts", 14).expect("goes on");
        seen.extend(rest);
        let losses =
            |steps: &[StepReport]| steps.iter().map(|s| (s.step, s.loss)).collect::<Vec<_>>();
        assert_eq!(losses(&seen), losses(&expected));
        let state = |run: &str| std::fs::read(checkpoint::file(&case.path(run))).expect("a file");
        assert!(state("whole") == state("parts"), "states differ");
        let (whole, parts) = (whole.expect("done"), parts.expect("done"));
        let figures =
            |report: &Report| [report.student.cosine, report.student.neighbors].map(f64::to_bits);
        assert_eq!(figures(&whole), figures(&parts));
        // Asked again, it only compares again.
        let (steps, again) = case.run("parts", 14).expect("compares");
        assert!(steps.is_empty());
        assert_eq!(figures(&again.expect("done")), figures(&parts));
    }
}

fn gap(a: &Tensor, b: &Tensor) -> f32 {
    let gap = (a - b).and_then(|d| d.abs()?.max_all()?.to_scalar::<f32>());
    gap.expect("of one shape")
}

/// Narrower than its teacher, and with a map to the teacher's dim.
const NARROW: [(&str, &str); 5] = [
    ("heads", "heads = 4"),
    ("width", "width = 16"),
    ("mlp_width", "mlp_width = 24"),
    ("start", "start = \"random\""),
    ("layers = 2", "layers = 1"),
];

#[test]
fn the_folder_of_a_student_gives_what_the_student_gives_and_has_the_dim_of_its_teacher() {
    for (name, changes) in [
        (TEACHER, &[][..]),
        (TEACHER, &NARROW),
        ("sentence_first_dense", &NARROW),
    ] {
        let case = try_case(name, changes).expect("a configuration");
        let mut run = Distillation::open(&case.config, &case.path("run")).expect("opens");
        run.train(&case.path("run"), 5, &mut |_| {})
            .expect("trains");
        run.export(&case.path("student")).expect("exports");
        let folder = SentenceFolder::read(&case.path("student")).expect("reads");
        assert_eq!(folder.config, run.sizes);
        assert_eq!(folder.config.dim(), run.teacher.config.dim());
        assert_eq!(folder.tokenizer_json, run.teacher.tokenizer_json);
        let encode = |text: &String| folder.tokenizer.encode(text).expect("tokenizes");
        let ids: Vec<Vec<u32>> = texts(90..120).iter().map(encode).collect();
        let served = folder.tower(Form::Fused).expect("its own weights fit");
        let [trained, served] = [run.student(), &served].map(|t| t.forward(&ids).expect("a pass"));
        let worst = gap(&trained.rows, &served.rows);
        assert!(worst < 1e-5, "{name}: {worst}");
    }
}

#[test]
fn a_student_of_the_teachers_sizes_begins_as_the_teacher_and_one_of_fewer_layers_with_some_of_them()
{
    let same = [
        ("layers = 2", "layers = 3"),
        ("heads", "heads = 3"),
        ("context_length", "context_length = 16"),
    ];
    let case = case(&same);
    let run = Distillation::open(&case.config, &case.path("run")).expect("opens");
    let ids = [vec![2, 9, 24, 3], vec![2, 30, 3]];
    let teacher = run.teacher.tower(Form::Fused).expect("a tower");
    let worst = gap(
        &run.student().forward(&ids).expect("a pass").rows,
        &teacher.forward(&ids).expect("a pass").rows,
    );
    assert!(worst < 1e-5, "{worst}");
    // Of three layers the second and the last.
    let case = self::case(&[]);
    let run = Distillation::open(&case.config, &case.path("run")).expect("opens");
    run.export(&case.path("student")).expect("exports");
    let load = |folder: &Path| {
        let file = folder.join("model.safetensors");
        candle_core::safetensors::load(file, &candle_core::Device::Cpu).expect("loads")
    };
    let (own, theirs) = (load(&case.path("student")), load(&case.config.teacher));
    for (layer, of) in [(0, 1), (1, 2)] {
        let name = |layer: usize| format!("encoder.layer.{layer}.attention.self.query.weight");
        let moved = gap(&own[&name(layer)], &theirs[&name(of)]);
        assert!(moved < f32::MIN_POSITIVE, "{moved}");
    }
    let positions = "embeddings.position_embeddings.weight";
    let first = theirs[positions].narrow(0, 0, 12).expect("it has 20");
    assert!(gap(&own[positions], &first) < f32::MIN_POSITIVE);
}

#[test]
fn words_that_are_not_learned_stay_the_teachers_and_all_else_moves() {
    let case = case(&[
        ("learn_words", "learn_words = false"),
        ("guide =", "guide = \"amad_v3\""),
    ]);
    let mut run = Distillation::open(&case.config, &case.path("run")).expect("opens");
    let load = |name: &str| {
        let file = case.path(name).join("model.safetensors");
        candle_core::safetensors::load(file, &candle_core::Device::Cpu).expect("loads")
    };
    run.export(&case.path("before")).expect("exports");
    run.train(&case.path("run"), 3, &mut |_| {})
        .expect("trains");
    run.export(&case.path("after")).expect("exports");
    let (before, after) = (load("before"), load("after"));
    assert_eq!(before.len(), after.len());
    for (name, tensor) in &before {
        assert!(
            name.starts_with("embeddings.") || name.starts_with("encoder."),
            "{name}"
        );
        let moved = gap(tensor, &after[name]);
        // Softmax does not see what is added to all keys alike.
        if name.ends_with("self.key.bias") {
            continue;
        }
        let words = name == "embeddings.word_embeddings.weight";
        assert_eq!(moved < f32::MIN_POSITIVE, words, "{name} moved by {moved}");
    }
}

#[test]
fn a_report_has_sane_figures_and_the_teacher_agrees_with_itself() {
    let case = case(&[("half_precision", "half_precision = true")]);
    let (_, report) = case.run("run", 24).expect("trains");
    let report = report.expect("it is done");
    assert_eq!((report.steps, report.held_out, report.batch), (24, 48, 32));
    let (teacher, student) = (&report.teacher, &report.student);
    for share in [
        teacher.cosine,
        teacher.neighbors,
        teacher.neighbors_in_collection,
        teacher.rank_correlation,
    ] {
        assert!((share - 1.0).abs() < 1e-5, "{report:?}");
    }
    for model in [teacher, &report.beginning, student] {
        assert!((-1.0..=1.00001).contains(&model.cosine), "{report:?}");
        assert!(
            (-1.0..=1.00001).contains(&model.rank_correlation),
            "{report:?}"
        );
        for share in [
            model.neighbors,
            model.neighbors_in_collection,
            model.recall_at_1,
            model.recall_at_10,
        ] {
            assert!((0.0..=1.0).contains(&share), "{report:?}");
        }
        assert!(model.recall_at_1 <= model.recall_at_10);
        assert!(model.one_text_ms > 0.0 && model.batch_ms > 0.0);
    }
    assert_eq!(
        (teacher.layers, student.layers, student.heads, student.width),
        (3, 2, 2, 24)
    );
    assert!(student.weights < teacher.weights && student.block_weights < teacher.block_weights);
    let file = case.path("run/student/model.safetensors");
    assert_eq!(
        student.bytes,
        std::fs::metadata(file).expect("it is there").len()
    );
    assert!(student.bytes < teacher.bytes / 2 + 4096, "half the bits");
    let written = std::fs::read_to_string(case.path("run/report.json")).expect("a file");
    let written: serde_json::Value = serde_json::from_str(&written).expect("JSON");
    assert_eq!(written["student"]["layers"], 2);
    let table = report.to_string();
    assert!(
        table.contains("| layers, heads, width | 3, 3, 24 | 2, 2, 24 | 2, 2, 24 |"),
        "{table}"
    );
}

/// Changed lines of the configuration, and what is said then.
const REFUSED: &[(&[(&str, &str)], &str)] = &[
    (
        &[("layers = 2", "layers = 0")],
        "`student.layers` must be at least 1",
    ),
    (
        &[("layers = 2", "layers = 4")],
        "`student.layers` must be at most the teacher's",
    ),
    (
        &[("heads", "heads = 5")],
        "`student.heads` must be a divisor",
    ),
    (
        &[("heads", "heads = 4"), ("guide", "guide = \"one_to_one\"")],
        "`student.heads` must be at most",
    ),
    (
        &[("context_length", "context_length = 17")],
        "`student.context_length` must be at least 3",
    ),
    (
        &[("width", "width = 16")],
        "`student.start` must be \"random\"",
    ),
    (
        &[
            ("start", "start = \"random\""),
            ("learn_words", "learn_words = false"),
        ],
        "`student.learn_words`",
    ),
    (
        &[("embedding", "embedding = -1.0")],
        "`lesson.embedding` must be a number of at least 0",
    ),
    (
        &[("embedding", "embedding = 0.0")],
        "`lesson.logits` must be above 0",
    ),
    (
        &[("logit_scale", "logit_scale = nan")],
        "`lesson.logit_scale`",
    ),
    (
        &[("weight =", "weight = 0.0")],
        "`lesson.attention.weight` must be a number above 0",
    ),
    (
        &[("guide", "guide = \"amad_v2\"\nsharpness = 0.0")],
        "`lesson.attention.sharpness`",
    ),
    (&[("batch", "batch = 97")], "holds 96 texts, at least 97"),
    (
        &[("steps =", "steps = 3")],
        "`optimizer.steps` must be more than warmup_steps",
    ),
    (
        &[("teacher =", "teacher = \"no/such/folder\"")],
        "no/such/folder",
    ),
    (
        &[("training =", "training = \"no/such/file\"")],
        "no/such/file",
    ),
    (
        &[("held_out =", "held_out = \"no/such/file\"")],
        "no/such/file",
    ),
];

#[test]
fn what_a_run_cannot_work_with_is_refused_by_its_key() {
    for (changes, says) in REFUSED {
        let case = case(changes);
        let refused = case.run("run", 1).expect_err(says).to_string();
        assert!(refused.contains(says), "{says}: {refused}");
        assert!(!case.path("run").exists(), "{says}: nothing was begun");
    }
    let unknown = try_case(TEACHER, &[("seed", "seed = 3\nsneed = 4")])
        .err()
        .expect("is refused");
    assert!(unknown.contains("sneed"), "{unknown}");
}

#[test]
fn a_checkpoint_of_another_configuration_or_teacher_is_refused() {
    let case = case(&[]);
    case.run("run", 2).expect("trains");
    let refused = |change: &dyn Fn(&mut DistillConfig)| {
        let mut config = case.config.clone();
        change(&mut config);
        let opened = Distillation::open(&config, &case.path("run"));
        opened.err().map(|error| error.to_string())
    };
    assert_eq!(
        refused(&|config| config.optimizer.checkpoint_every = 7),
        None
    );
    let other = case.path("teacher");
    let copy = |folder: &str| {
        std::fs::create_dir_all(other.join(folder)).expect("makes");
        for entry in std::fs::read_dir(case.config.teacher.join(folder)).expect("lists") {
            let file = entry.expect("an entry").path();
            if file.is_file() {
                let name = file.file_name().expect("a name");
                std::fs::copy(&file, other.join(folder).join(name)).expect("copies");
            }
        }
    };
    copy("");
    copy("1_Pooling");
    assert_eq!(
        refused(&|config| config.teacher = other.clone()),
        None,
        "the same elsewhere"
    );
    let config = std::fs::read_to_string(other.join("config.json")).expect("reads");
    std::fs::write(other.join("config.json"), config.replace("1e-12", "1e-6")).expect("writes");
    for message in [
        refused(&|config| config.seed = 4),
        refused(&|config| config.teacher = other.clone()),
    ] {
        let message = message.expect("is refused");
        assert!(message.contains("another configuration"), "{message}");
    }
}
