"""Our towers and their peers, in turns, on the same checkpoints and inputs; see run.sh.

Each engine runs in a process of its own for each number of threads. In each round every engine in
a random order does each job once; a figure is the median of the seconds of all passes. Accuracy is
the least cosine and the largest difference of a number to torch in f32, over all inputs.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import report
from models import COMPARED, INPUTS, MODELS, SEED, kinds, lists
from shared import processor, refuse_if_busy

SETTLE_S = 300
# Seconds that an engine works on one job in one round, about.
TURN_S = 1.0
REFERENCE = "torch f32"
ENGINES = {
    "diptych": ["f32", "int16", "bf16", "int8"],
    "onnxruntime": ["f32", "int8"],
    "openvino": ["f32", "bf16", "int8"],
    "torch": ["f32", "bf16"],
}
THREADS = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"]
STARTUPS = 5


def numbers(text):
    return [int(number) for number in text.split(",")]


def arguments():
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(COMPARED), help=f"some of {','.join(MODELS)}")
    parser.add_argument("--engines", default=",".join(ENGINES), help="some of them, with commas")
    parser.add_argument("--threads", type=numbers, default=[1, 2])
    parser.add_argument("--batches", type=numbers, default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--startup", action="store_true", help="measure the first embedding only")
    parser.add_argument("--json", metavar="FILE", help="write all figures there, too")
    parser.add_argument("--markdown", metavar="FILE", help="put the tables into this document")
    parser.add_argument("--mark", help="a word for its marks there, of another machine's table")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it works")
    parser.add_argument("--busy-ok", action="store_true", help="measure on a busy machine")
    parser.add_argument("--binary", help=argparse.SUPPRESS)
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.models, options.engines = options.models.split(","), options.engines.split(",")
    for what, known in [("models", MODELS), ("engines", ENGINES)]:
        for name in getattr(options, what):
            if name not in known:
                parser.error(f"--{what} has {name!r}, expected some of {','.join(known)}")
    if min([options.rounds, *options.threads, *options.batches]) < 1:
        parser.error("--rounds, --threads and --batches are at least 1")
    options.rounds = 1 if options.quick else options.rounds
    options.turn_s = 0.0 if options.quick else TURN_S
    return options


class Side:
    """An engine of one precision in a process that waits for its turn."""

    def __init__(self, options, engine, precision, model, folder, threads):
        self.name = f"{engine} {precision}"
        if engine == "diptych":
            inputs = os.path.join(folder, "inputs")
            command = [options.binary, folder, inputs, "--precision", precision]
        else:
            script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers.py")
            command = [sys.executable, script, engine, precision, model, folder, str(threads)]
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8")
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, **dict.fromkeys(THREADS, str(threads))},
        )
        first = self.answer()
        self.missing = first.get("missing")
        self.version, self.packed_bytes = first.get("version"), first.get("packed_bytes")

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            sys.exit(f"{self.name} ended early:\n{self.errors.read()}")
        return json.loads(line)

    def ask(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.answer()

    def resident_mb(self):
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as file:
            lines = [line for line in file if line.startswith(("VmRSS", "RssAnon"))]
        return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def start(options, model, folder, threads):
    """The engines that there are, and why others are not."""
    sides, missing = [], {}
    for engine in options.engines:
        for precision in ENGINES[engine]:
            side = Side(options, engine, precision, model, folder, threads)
            if side.missing:
                missing[side.name] = side.missing
                side.close()
            else:
                sides.append(side)
    return sides, missing


def accuracy(sides, kind, folder):
    """`{engine: least cosine and largest difference}` to the reference; empty without it."""
    import numpy as np

    if all(side.name != REFERENCE for side in sides):
        return {}
    rows = {}
    for side in sides:
        file = os.path.join(folder, "rows.npy")
        side.ask(f"embed {kind} {file}")
        rows[side.name] = np.load(file).astype(np.float64)
    # What is left of rounding in the lengths is no angle.
    units = {name: of / np.linalg.norm(of, axis=1, keepdims=True) for name, of in rows.items()}
    reference = units[REFERENCE]
    between = reference @ reference.T - 2 * np.eye(len(reference))
    if between.max() > 0.9999:
        sys.exit(f"{kind}: two inputs have the same embedding, accuracy would mean nothing")
    return {
        name: {
            "least_cosine": float((units[name] * reference).sum(axis=1).min()),
            "largest_difference": float(np.abs(of - rows[REFERENCE]).max()),
        }
        for name, of in rows.items()
    }


def measure(options, sides, kind, batch):
    """`{engine: figures}` of one kind and batch, by passes in turns."""
    repeats, passes = {}, {side.name: {"wall_s": [], "cpu_s": []} for side in sides}
    for side in sides:
        # Warms up, too.
        once = min(side.ask(f"run {kind} {batch} 2")["wall_s"])
        repeats[side.name] = max(1, round(options.turn_s / once))
    for turn in range(options.rounds):
        order = sides[:]
        random.Random(SEED + turn).shuffle(order)
        for side in order:
            answer = side.ask(f"run {kind} {batch} {repeats[side.name]}")
            for key, seconds in passes[side.name].items():
                # Of a turn, so that a slow engine has as many as a fast one.
                seconds.append(statistics.median(answer[key]))
    return {
        name: {
            "per_s": batch / statistics.median(of["wall_s"]),
            "wall_ms": 1e3 * statistics.median(of["wall_s"]),
            "cpu_ms": 1e3 * statistics.median(of["cpu_s"]),
        }
        for name, of in passes.items()
    }


def compare(options, folders):
    """All figures: one row for each model, number of threads, kind, batch and engine."""
    rows, versions, missing = [], {}, {}
    for model, folder in folders.items():
        for threads in options.threads:
            sides, without = start(options, model, folder, threads)
            missing.update({f"{model} {name}": why for name, why in without.items()})
            versions.update({side.name.split()[0]: side.version for side in sides})
            for kind in kinds(model):
                exact = accuracy(sides, kind, options.scratch)
                for batch in [INPUTS] if kind == "mixed" else options.batches:
                    figures = measure(options, sides, kind, batch)
                    for name, of in figures.items():
                        at = {"model": model, "threads": threads, "kind": kind, "batch": batch}
                        rows.append({**at, "engine": name, **of, **exact.get(name, {})})
                    print(f"{model}, {threads} threads, {kind} b{batch}: done", flush=True)
            for side in sides:
                side.close()
    return {"rows": rows, "versions": versions, "missing": missing}


def startup(options, folders):
    """Process start to the first embedding of a text, and memory after it, for our side."""
    found = []
    for model, folder in folders.items():
        size = os.path.getsize(os.path.join(folder, "model.safetensors")) / 2**20
        for precision in ENGINES["diptych"]:
            seconds, memory = [], {}
            for _ in range(STARTUPS):
                side = Side(options, "diptych", precision, model, folder, max(options.threads))
                if not side.missing:
                    side.ask(f"run {next(iter(lists(model)))} 1 1")
                    seconds.append(time.perf_counter() - side.began)
                    memory = {**side.resident_mb(), "packed_mb": side.packed_bytes / 2**20}
                side.close()
            if seconds:
                of = {"first_embedding_s": statistics.median(seconds), "checkpoint_mb": size}
                found.append({"model": model, "engine": f"diptych {precision}", **of, **memory})
    return {"startup": found}


def main():
    options = arguments()
    if options.check:
        refuse_if_busy(options, 0)
        return
    import models

    os.makedirs(options.cache, exist_ok=True)
    exported = not {"onnxruntime", "openvino"}.isdisjoint(options.engines) and not options.startup
    folders = {model: models.make(model, options.cache, exported) for model in options.models}
    load_before = refuse_if_busy(options, SETTLE_S)
    with tempfile.TemporaryDirectory(dir=options.cache) as options.scratch:
        result = (startup if options.startup else compare)(options, folders)
    result = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "load_before": load_before,
        "load_after": os.getloadavg()[0],
        "rounds": options.rounds,
        "mark": options.mark,
        "seed": SEED,
        **result,
    }
    print(report.summary(result), end="")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)
            file.write("\n")
    if options.markdown:
        report.put_markdown(result, options.markdown)


if __name__ == "__main__":
    main()
