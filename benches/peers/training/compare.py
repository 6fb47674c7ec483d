"""Steps of our trainer and of PyTorch, in turns; see run.sh.

Both train the towers of the built-in model with symmetric InfoNCE, AdamW and clipping. Ours draws,
varies and tokenizes its batches meanwhile; PyTorch sees one batch again and again. Each round runs
every way for some steps, the first of which does not count; a figure is the median of all others.
"""

import argparse
import json
import os
import random
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from shared import processor, put_between_marks, refuse_if_busy, table

SETTLE_S = 300
SEED = 7
SIDE = 72
PICTURES = 1024
# How much longer than PyTorch's a step of ours may take.
GOAL = 1.3
CONFIG = """
seed = 7
[data]
manifests = ["{folder}/manifest.jsonl"]
held_out = []
skin_tone_weight = 1.0
[model]
name = "bench"
dim = 128
[model.image]
kind = "residual"
image_size = 64
stem = [24, 48]
stages = [48, 96, 192]
blocks = 2
width = 256
[model.text]
vocabulary = 514
context_length = 32
width = 192
layers = 3
heads = 3
[optimizer]
batch = {batch}
steps = 100000
warmup_steps = 100
learning_rate = 2e-3
logit_scale_factor = 3.0
weight_decay = 0.1
clip = 1.0
factors = "{factors}"
checkpoint_every = 100000
evaluate_every = 100000
[captions]
tag_share = 0.0
tags_from = 0.0
carrier_share = 0.0
[augment]
rotation = 15.0
scale = [0.7, 1.1]
shift = 0.1
white_share = 0.6
color = 0.25
gray_share = 0.05
erase_share = 0.15
mirror_share = 0.3
"""


def numbers(text):
    return [int(number) for number in text.split(",")]


def arguments():
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=numbers, default=[1, 2])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="steps of a turn")
    parser.add_argument("--json", metavar="FILE", help="write all figures there, too")
    parser.add_argument("--markdown", metavar="FILE", help="put the tables into this document")
    parser.add_argument("--busy-ok", action="store_true", help="measure on a busy machine")
    parser.add_argument("--binary", help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--turn", metavar="WAY", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name in ["batch", "rounds"]:
        if getattr(options, name) < 1:
            parser.error(f"--{name} is {getattr(options, name)}, expected at least 1")
    if options.steps < 2:
        parser.error(f"--steps is {options.steps}, expected at least 2: the first does not count")
    if options.batch > PICTURES:
        parser.error(f"--batch is {options.batch}, expected at most {PICTURES}")
    return options


def drawings(folder):
    """Bitmaps of noise with names of six letters, which no merge of the tokenizer joins."""
    draw = random.Random(SEED)
    names = set()
    while len(names) < PICTURES:
        names.add("".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=6)))
    with open(f"{folder}/manifest.jsonl", "w", encoding="utf-8") as manifest:
        for i, name in enumerate(sorted(names)):
            size = 3 * SIDE * SIDE
            head = struct.pack("<2sIHHI", b"BM", 54 + size, 0, 0, 54)
            head += struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 24, 0, size, 0, 0, 0, 0)
            with open(f"{folder}/{i}.bmp", "wb") as picture:
                picture.write(head + draw.randbytes(size))
            entry = {"image": f"{i}.bmp", "concept": name, "name": name, "tags": [],
                     "style": "noise", "skin_tone": False}
            manifest.write(json.dumps(entry) + "\n")


def ours(options, folder, threads, factors):
    """Seconds of every step but the first, and the peak of memory in MiB."""
    with tempfile.TemporaryDirectory() as run:
        config = f"{run}/config.toml"
        with open(config, "w", encoding="utf-8") as file:
            file.write(CONFIG.format(folder=folder, batch=options.batch, factors=factors))
        command = [options.binary, "fit", "--config", config, "--run", run,
                   "--until", str(options.steps)]
        environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"{' '.join(command)} ended with status {status}")
        with open(f"{run}/metrics.jsonl", encoding="utf-8") as file:
            steps = [json.loads(line)["samples_per_second"] for line in file]
    return [options.batch / rate for rate in steps[1:]], usage.ru_maxrss / 1024


def theirs(options, threads, factors):
    """The same of PyTorch, in a process of its own."""
    command = [sys.executable, os.path.abspath(__file__), "--turn", factors,
               "--steps", str(options.steps), "--batch", str(options.batch)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    turn = json.loads(done.stdout)
    return turn["seconds"], turn["mib"]


def turn(options):
    import torch

    from towers import Training

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    training = Training(options.batch, options.turn == "bf16")
    seconds = []
    for _ in range(options.steps):
        started = time.perf_counter()
        training.step()
        seconds.append(time.perf_counter() - started)
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds[1:], "mib": mib}))


def main():
    options = arguments()
    if options.turn:
        turn(options)
        return
    load = refuse_if_busy(options, SETTLE_S)
    if options.check:
        return
    ways = [(who, threads, factors) for who in ["diptych", "torch"]
            for threads in options.threads for factors in ["f32", "bf16"]]
    seconds, mib = {way: [] for way in ways}, dict.fromkeys(ways, 0.0)
    order = random.Random(SEED)
    with tempfile.TemporaryDirectory() as folder:
        drawings(folder)
        for _ in range(options.rounds):
            for way in order.sample(ways, len(ways)):
                who, threads, factors = way
                if who == "diptych":
                    taken, peak = ours(options, folder, threads, factors)
                else:
                    taken, peak = theirs(options, threads, factors)
                seconds[way] += taken
                mib[way] = max(mib[way], peak)
    rows = []
    for way in ways:
        who, threads, factors = way
        median = statistics.median(seconds[way])
        against = statistics.median(seconds["torch", threads, factors])
        rows.append({
            "who": who, "threads": threads, "factors": factors, "seconds": median,
            "pairs_per_s": options.batch / median, "time_to_torch": median / against,
            "mib": mib[way],
        })
    import torch

    report = {
        "processor": processor(), "cores": os.cpu_count(), "torch": torch.__version__,
        "batch": options.batch, "rounds": options.rounds, "load_before": load,
        "load_after": os.getloadavg()[0], "goal": GOAL, "rows": rows,
    }
    header = ["", "threads", "factors", "pairs/s", "time, torch's is 1", "MiB at most", "goal"]

    def cells(row):
        met = ""
        if row["who"] == "diptych":
            met = "met" if row["time_to_torch"] <= GOAL else "missed"
        return [row["who"], str(row["threads"]), row["factors"], f"{row['pairs_per_s']:.0f}",
                f"{row['time_to_torch']:.2f}", f"{row['mib']:.0f}", met]

    lines = table(header, [cells(row) for row in rows])
    about = (f"{options.rounds} rounds of {options.steps} steps in turns, {options.batch} pairs a step; "
             f"{report['processor']}, {report['cores']} cores, torch {report['torch']}, load "
             f"{load:.1f} before and {report['load_after']:.1f} after. Goal: at most {GOAL} times "
             "the time of torch.")
    text = "\n".join([about, "", *lines, ""])
    print(text)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)
    if options.markdown:
        put_between_marks(options.markdown, "training", text)


if __name__ == "__main__":
    main()
