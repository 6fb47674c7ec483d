"""Recall and speed of our graph and of its peers, in turns, on the same rows; see run.sh.

Every index is built on one thread and answers all queries once per setting and round; rounds go
through all settings of all peers in a random order of their own, and a figure is the median over
the rounds. Recall is counted here, the same way for all, against the exact answers of numpy.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import report
from curves import ratios, reached, recall, two_threads, worth_repeating
from shared import processor, refuse_if_busy

SETTLE_S = 300
K = 10
SEED = 7
QUERIES = ["image", "text"]
PEERS = ["hnswlib", "faiss", "usearch", "scann"]
EF_SEARCH = [10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640, 896]
THREADS = {"diptych": 1, "diptych_two_threads": 2}
ONE_THREAD = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"]


def arguments():
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=1000, help="of each kind")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default=",".join(PEERS), help="some of them, with commas")
    parser.add_argument("--json", metavar="FILE", help="write all figures there, too")
    parser.add_argument("--plot", metavar="FILE", help="draw recall against speed (SVG)")
    parser.add_argument("--markdown", metavar="FILE", help="put the tables into this document")
    parser.add_argument("--busy-ok", action="store_true", help="measure on a busy machine")
    parser.add_argument("--binary", help=argparse.SUPPRESS)
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if min(options.rows, options.queries) < K or options.rounds < 1:
        parser.error(f"--rows and --queries are at least {K}, --rounds at least 1")
    if options.dim % 2:
        parser.error(f"--dim is {options.dim}, expected an even one for codes of two elements")
    options.peers = options.peers.split(",") if options.peers else []
    for name in options.peers:
        if name not in PEERS:
            parser.error(f"--peers has {name!r}, expected some of {','.join(PEERS)}")
    if not options.cache and options.binary:
        options.cache = os.path.join(os.path.dirname(options.binary), "peers")
    return options


class Process:
    """An index in a process that waits for its turn."""

    def __init__(self, name, command):
        self.name = name
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, **dict.fromkeys(ONE_THREAD, "1")},
        )

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

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Ours(Process):
    """The graph of the engine."""

    def __init__(self, options, folder):
        command = [options.binary, "measure", folder, "--dim", str(options.dim), "--k", str(K)]
        super().__init__("search_rows", command)
        self.built = self.answer()
        self.costs = {"diptych": {"build_s": self.built["build_s"]}}
        # The build line says how it knows.
        by_growth = "resident growth" in self.built["bytes_per_row_is"]
        key = "resident_growth_per_row" if by_growth else "bytes_per_row"
        self.costs["diptych"][key] = self.built["bytes_per_row"]
        self.curves = {name: [{"ef": ef} for ef in EF_SEARCH] for name in THREADS}

    def search(self, curve, kind, setting):
        return self.ask(f"{kind} {setting['ef']} {THREADS[curve]}")


class Peer(Process):
    """A library in Python."""

    def __init__(self, name, options, folder, params):
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers.py")
        settings = [folder, str(options.dim), str(K), json.dumps(params)]
        super().__init__(name, [sys.executable, script, name, *settings])
        built = self.answer()
        self.missing = built.get("missing")
        if not self.missing:
            self.version, self.costs = built["version"], built["costs"]
            self.curves = {name: of["settings"] for name, of in built["curves"].items()}

    def search(self, curve, kind, setting):
        return self.ask(json.dumps({"curve": curve, "kind": kind, "setting": setting}))


def why_missing(name, error):
    """The reason that the installation left, or else what Python says."""
    try:
        with open(os.path.join(sys.prefix, f"{name}.txt"), encoding="utf-8") as file:
            return file.read().strip() or error
    except OSError:
        return error


def measure(sides, kind, truth, rounds):
    """`{curve: points}` of one kind of queries, from passes in turns."""
    jobs = [(s, name, setting) for s in sides for name, of in s.curves.items() for setting in of]
    recalls = {}

    def go(chosen):
        """Speed of one pass for each of the chosen jobs."""
        speeds = {}
        for i in chosen:
            side, curve, setting = jobs[i]
            answer = side.search(curve, kind, setting)
            recalls[i] = recall(truth, answer["found"])
            if abs(answer.get("recall", recalls[i]) - recalls[i]) > 0.002:
                sys.exit(f"{side.name} counts recall {answer['recall']}, numpy {recalls[i]}")
            speeds[i] = answer["qps"]
        return speeds

    # A first look, which also warms up, finds the settings that are worth their time.
    first = go(range(len(jobs)))
    by_curve = {}
    for i, (_, curve, _) in enumerate(jobs):
        by_curve.setdefault(curve, []).append(i)
    chosen = []
    for of in by_curve.values():
        looks = [{"recall": recalls[i], "qps": first[i]} for i in of]
        chosen += [of[at] for at in worth_repeating(looks)]
    passes = []
    for turn in range(rounds):
        random.Random(SEED + turn).shuffle(chosen)
        passes.append(go(chosen))
    return {
        curve: [
            {
                "setting": jobs[i][2],
                "recall": recalls[i],
                "qps": statistics.median(speeds[i] for speeds in passes),
            }
            for i in of
            if i in passes[0]
        ]
        for curve, of in by_curve.items()
    }


def compare(options, folder):
    """All figures of one run."""
    import numpy as np

    import truth

    truth.generate(options, folder)
    truths = truth.truths(options, folder, K)
    # The products above may have used every core.
    load_before = refuse_if_busy(options, SETTLE_S)
    ours = Ours(options, folder)
    print(f"diptych: built in {ours.built['build_s']:.1f} s", flush=True)
    sides, versions = [ours], {"diptych": ours.built["version"], "numpy": np.__version__}
    for name in options.peers:
        peer = Peer(name, options, folder, ours.built["params"])
        if peer.missing:
            versions[name] = f"not installed: {why_missing(name, peer.missing)}"
            print(f"{name}: {versions[name]}", flush=True)
            continue
        for index, cost in peer.costs.items():
            print(f"{index}: built in {cost['build_s']:.1f} s", flush=True)
        versions[name] = peer.version
        sides.append(peer)
    by_kind = {kind: measure(sides, kind, truths[kind], options.rounds) for kind in QUERIES}
    load_after = os.getloadavg()[0]
    for side in sides:
        side.close()
    curves = {name: {kind: by_kind[kind][name] for kind in QUERIES} for name in by_kind[QUERIES[0]]}
    costs = {name: cost for side in sides for name, cost in side.costs.items()}
    at = reached(curves)
    theirs = costs.get("hnswlib")
    return {
        "rows": options.rows,
        "dim": options.dim,
        "queries": options.queries,
        "k": K,
        "rounds": options.rounds,
        "seed": SEED,
        "params": ours.built["params"],
        "processor": processor(),
        "cores": os.cpu_count(),
        "load_before": load_before,
        "load_after": load_after,
        "python": platform.python_version(),
        "versions": versions,
        "ratios": ratios(at),
        "two_threads": two_threads(at),
        "build_ratio": theirs["build_s"] / ours.built["build_s"] if theirs else None,
        "bytes_per_row": ours.built["bytes_per_row"],
        "bytes_per_row_is": ours.built["bytes_per_row_is"],
        "costs": costs,
        "at_recall": at,
        "curves": curves,
    }


def main():
    options = arguments()
    if options.check:
        refuse_if_busy(options, 0)
        return
    os.makedirs(options.cache, exist_ok=True)
    # Beside the cache: where temporary files live in memory, a million rows do not fit.
    with tempfile.TemporaryDirectory(dir=options.cache) as folder:
        os.environ["TMPDIR"] = folder
        result = compare(options, folder)
    print(report.points(result))
    print(report.summary(result), end="")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)
            file.write("\n")
    if options.markdown:
        report.put_markdown(result, options.markdown)
    if options.plot:
        report.plot(result, options.plot)


if __name__ == "__main__":
    main()
