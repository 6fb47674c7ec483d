"""Objectives beside each other on real pictures; see run.sh.

The model is diptych-mini made smaller: pictures of 48 pixels and two thirds of its width. Every variant sees
the same number of views: one that draws two views of each pair takes half as many steps. Figures, each the mean and the spread (standard deviation) over the seeds:

- recall@10 from names to pictures of the Twemoji gallery without skin tones, whose style no run saw;
- precision@10 between pictures of the gallery: how many of the ten nearest others are of the same
  subgroup of Unicode, by the shared and by the specific embedding;
- accuracy of a linear probe of [shared; specific] on half of the gallery by subgroup, and on CIFAR-10;
- the modality gap (Liang et al. 2022): the distance of the means of picture and name embeddings.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import statistics
import subprocess
import sys

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../benches/peers"))

from shared import put_between_marks, table

FIGURES = ["recall@10", "shared p@10", "specific p@10", "probe", "CIFAR-10", "gap"]
TRANSLATED = "all, with gamma, 15 languages"
LATENT = {
    "in-modal": {"in_modal": 1.0},
    "separation": {"separation": 0.1},
    "bridge": {"bridge": 0.3},
    "geometric": {"geometric": 0.05},
    "all structures": {"in_modal": 1.0, "separation": 0.1, "bridge": 0.3, "geometric": 0.05},
}
LANGUAGES = "ar de es fr hi it ja ko nl pl pt ru tr zh".split()
GAMMA = 'mode = "gamma_mean"\ngain_decay = 0.8\nmin_gain = 0.2'


def variants():
    """Name to (batch, whether two views are drawn, text of [objective.*])."""
    found = {}
    for batch in [256, 32, 16]:
        found[f"InfoNCE, batch {batch}"] = (batch, False, "")
        found[f"gamma, batch {batch}"] = (batch, False, f"[objective.contrast]\n{GAMMA}\n")
    for name, weights in LATENT.items():
        lines = "\n".join(f"{key} = {value}" for key, value in weights.items())
        views = any(key != "geometric" for key in weights)
        found[name] = (256, views, f"[objective.latent]\n{lines}\n")
    every = found["all structures"][2]
    found["all, with gamma"] = (256, True, f"{every}\n[objective.contrast]\n{GAMMA}\n")
    # What fourteen more languages cost English, a quarter of all captions as in the built-in model.
    found[TRANSLATED] = found["all, with gamma"]
    return found


CONFIG = """
seed = {seed}
[data]
manifests = ["target/mini/pictures/manifest.jsonl"]
held_out = []
{languages}
skin_tone_weight = 0.3
[data.style_weights]
emojione-monotone = 0.5
fluent-emoji-high-contrast = 0.5
[model]
name = "study"
dim = 128
specific = true
[model.image]
kind = "residual"
image_size = 48
stem = [16, 32]
stages = [32, 64, 128]
blocks = 2
width = 192
[model.text]
vocabulary = 4096
context_length = 32
width = 128
layers = 3
heads = 2
{objective}
[optimizer]
batch = {batch}
steps = {steps}
warmup_steps = {warmup}
learning_rate = {rate}
logit_scale_factor = 3.0
weight_decay = 0.1
clip = 1.0
factors = "bf16"
checkpoint_every = 100000
evaluate_every = 100000
[captions]
tag_share = 0.2
tags_from = 0.2
carrier_share = 0.4
{translated}
[augment]
rotation = 20.0
scale = [0.6, 1.15]
shift = 0.1
white_share = 0.6
color = 0.35
gray_share = 0.1
erase_share = 0.15
mirror_share = 0.3
"""


def run(command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, **options)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])} ... ended with status {done.returncode}")
    return done.stdout


def trained(options, name, seed, folder):
    """The model folder of a variant, trained where it is not there yet."""
    out = f"{folder}/model"
    if os.path.exists(f"{out}/config.json"):
        return out
    batch, views, objective = variants()[name]
    steps = options.budget // (batch * (2 if views else 1))
    others = LANGUAGES if name == TRANSLATED else []
    text = CONFIG.format(
        languages=f"languages = {json.dumps(others)}",
        translated="translated_share = 0.25\ntranslations_from = 0.0" if others else "",
        seed=seed, objective=objective, batch=batch, steps=steps, warmup=max(1, steps // 12),
        # The usual rule for Adam: with the root of the batch.
        rate=2e-3 * (batch / 256) ** 0.5,
    )
    os.makedirs(folder, exist_ok=True)
    config = f"{folder}/run.toml"
    with open(config, "w", encoding="utf-8") as file:
        file.write(text)
    trainer = f"{options.bin}/diptych-train"
    # What is learned does not depend on the number of threads.
    threads = max(1, len(os.sched_getaffinity(0)) // options.jobs)
    run([trainer, "fit", "--config", config, "--run", folder],
        env={**os.environ, "RAYON_NUM_THREADS": str(threads)})
    run([trainer, "export", "--config", config, "--run", folder, "--out", out])
    os.remove(f"{folder}/checkpoint.safetensors")
    return out


def embedded(options, model, images=(), texts=()):
    """Shared and specific rows, texts first."""
    rows = []
    # An argument list has an end.
    inputs = [("--text", text) for text in texts] + [("--image", image) for image in images]
    for at in range(0, len(inputs), 2000):
        command = [f"{options.bin}/diptych", "embed", "--json", "--model", model]
        for flag, value in inputs[at:at + 2000]:
            command += [f"{flag}={value}"]
        rows += json.loads(run(command))["items"]
    shared = np.array([row["shared"] for row in rows], dtype=np.float32)
    specific = np.array([row["specific"] for row in rows], dtype=np.float32)
    return shared, specific


def gallery(options):
    """(picture, subgroup) of every emoji without a skin tone."""
    home = f"{options.work}/home"
    pictures = f"{home}/gallery"
    if not os.path.exists(f"{pictures}/complete.json"):
        binary = f"{options.bin}/diptych"
        server = subprocess.Popen([binary, "--data", home, "demo", "--port", "0"],
                                  stdout=subprocess.PIPE, text=True)
        for line in server.stdout:
            if "http://" in line:
                break
        server.terminate()
        server.wait()
    with open(f"{options.work}/emojibase/package/en/data.json", encoding="utf-8") as file:
        known = {entry["hexcode"].lower(): entry for entry in json.load(file)}
    # Twemoji leaves out the sign that asks for colors where there is nothing to tell apart.
    known |= {code.replace("-fe0f", ""): entry for code, entry in known.items()}
    found = []
    for name in sorted(os.listdir(pictures)):
        entry = known.get(name.removesuffix(".png"))
        if name.endswith(".png") and entry and "subgroup" in entry:
            found.append((f"{pictures}/{name}", entry["label"], entry["subgroup"]))
    return found


def precision(rows, labels):
    """Share of the ten nearest others with the same label, where there are as many."""
    labels = np.array(labels)
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -2)
    nearest = np.argpartition(-cosines, 10, axis=1)[:, :10]
    counts = collections.Counter(labels.tolist())
    enough = np.array([counts[label] > 10 for label in labels.tolist()])
    return float((labels[nearest] == labels[:, None])[enough].mean())


def probe(rows, labels, test):
    """Accuracy of logistic regression on the rows of `test`, trained on the others."""
    rows = StandardScaler().fit(rows[~test]).transform(rows)
    labels = np.array(labels)
    head = LogisticRegression(C=0.01, max_iter=1000).fit(rows[~test], labels[~test])
    return float(head.score(rows[test], labels[test]))


def cifar(options):
    """(picture, class) of the first 200 pictures of each class."""
    if not options.cifar:
        return []
    found = []
    for label in sorted(os.listdir(options.cifar)):
        names = sorted(os.listdir(f"{options.cifar}/{label}"))[:200]
        found += [(f"{options.cifar}/{label}/{name}", label) for name in names]
    return found


def measured(options, model, pictures, photos):
    paths, names, groups = map(list, zip(*pictures))
    shared, specific = embedded(options, model, paths, names)
    texts, images = shared[:len(names)], shared[len(names):]
    of_images = specific[len(names):]
    ranks = (images @ texts.T > (images * texts).sum(1)).sum(0)
    half = np.arange(len(paths)) % 2 == 1
    figures = {
        "recall@10": float((ranks < 10).mean()),
        "shared p@10": precision(images, groups),
        "specific p@10": precision(of_images, groups),
        "probe": probe(np.hstack([images, of_images]), groups, half),
        "gap": float(np.linalg.norm(images.mean(0) - texts.mean(0))),
    }
    if photos:
        paths, labels = map(list, zip(*photos))
        shared, specific = embedded(options, model, paths)
        half = np.arange(len(paths)) % 2 == 1
        figures["CIFAR-10"] = probe(np.hstack([shared, specific]), labels, half)
    return figures


def arguments():
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=int, default=76800, help="views of pairs for each run")
    parser.add_argument("--seeds", type=lambda text: [int(x) for x in text.split(",")],
                        default=[20, 21, 22])
    parser.add_argument("--only", type=lambda text: text.split(";"), help="names with semicolons")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)),
                        help="runs at a time, which share the cores")
    parser.add_argument("--cifar", metavar="FOLDER")
    parser.add_argument("--json", metavar="FILE", help="write all figures there, too")
    parser.add_argument("--markdown", metavar="FILE", help="put the table into this document")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--bin", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = set(options.only or []) - set(variants())
    if unknown:
        parser.error(f"--only names {', '.join(unknown)}, expected some of: {'; '.join(variants())}")
    if options.budget < 2 * 256 * 4:
        parser.error(f"--budget is {options.budget}, expected at least {2 * 256 * 4}")
    return options


def main():
    options = arguments()
    pictures, photos = gallery(options), cifar(options)

    def one(name, seed):
        plain = "".join(c if c.isalnum() else "-" for c in name)
        folder = f"{options.work}/{options.budget}/{plain}/{seed}"
        model = trained(options, name, seed, folder)
        kept = f"{folder}/figures.json"
        if not os.path.exists(kept):
            figures = measured(options, model, pictures, photos)
            with open(kept + ".part", "w", encoding="utf-8") as file:
                json.dump(figures, file)
            os.replace(kept + ".part", kept)
        with open(kept, encoding="utf-8") as file:
            figures = json.load(file)
        print(name, seed, figures, flush=True)
        return figures

    # Every variant with one seed before any with the next: a study that is stopped has all rows.
    runs = [(name, seed) for seed in options.seeds for name in options.only or variants()]
    results = {name: [] for name, _ in runs}
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for (name, _), figures in zip(runs, pool.map(lambda run: one(*run), runs)):
            results[name].append(figures)

    def cell(of, figure):
        values = [run[figure] for run in of if figure in run]
        if not values:
            return "-"
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        return f"{statistics.mean(values):.3f} ({spread:.3f})"

    rows = [[name, *(cell(of, figure) for figure in FIGURES)] for name, of in results.items()]
    text = "\n".join([
        f"{options.budget:,} views of pairs in each run, seeds {', '.join(map(str, options.seeds))}; "
        f"{len(pictures)} pictures of the gallery.", "", *table(["", *FIGURES], rows), ""])
    print(text)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"budget": options.budget, "seeds": options.seeds, "runs": results}, file, indent=1)
    if options.markdown:
        put_between_marks(options.markdown, "study", text)


if __name__ == "__main__":
    main()
