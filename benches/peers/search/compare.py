"""Recall and speed of our graph and of hnswlib, in turns, on the same rows; see run.sh.

Both build with the same M and ef_construction on one thread, then answer all queries once per
ef_search and round, in turns; a figure is the median over the rounds. Recall is counted here, the
same way for both, against the exact answers of numpy.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time

BUSY = 1.5
SETTLE_S = 300
K = 10
SEED = 7
EF_SEARCH = [10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448]
TARGETS = [0.95, 0.99]
QUERIES = ["image", "text"]
SIDES = ["diptych", "hnswlib"]


def arguments():
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=1000, help="of each kind")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", help="write all figures there, too")
    parser.add_argument("--busy-ok", action="store_true", help="measure on a busy machine")
    parser.add_argument("--binary", help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if min(options.rows, options.queries) < K or options.rounds < 1:
        parser.error(f"--rows and --queries are at least {K}, --rounds at least 1")
    return options


def refuse_if_busy(options, wait_s):
    """Ends the program on a busy machine, after giving our own build time to fade."""
    deadline = time.monotonic() + wait_s
    while (load := os.getloadavg()[0]) > BUSY and not options.busy_ok:
        if time.monotonic() >= deadline:
            sys.exit(f"the load is {load:.1f}, above {BUSY}: wait, or say --busy-ok")
        time.sleep(5)
    return load


class Ours:
    """The graph of the engine, in a process that waits for its turn."""

    def __init__(self, options, folder):
        command = [options.binary, "measure", folder, "--dim", str(options.dim), "--k", str(K)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        built = self.answer()
        self.build_s, self.params = built["build_s"], built["params"]

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit("search_rows ended early")
        return json.loads(line)

    def search(self, kind, ef):
        self.process.stdin.write(f"{kind} {ef}\n")
        self.process.stdin.flush()
        answer = self.answer()
        return answer["found"], answer["qps"], answer["recall"]


class Hnswlib:
    """The index of hnswlib with our parameters."""

    def __init__(self, rows, queries, params):
        import hnswlib

        self.queries = queries
        # Of unit rows the inner product is the cosine; this is its fastest form.
        self.index = hnswlib.Index(space="ip", dim=rows.shape[1])
        self.index.init_index(
            max_elements=len(rows),
            M=params["m"],
            ef_construction=params["ef_construction"],
            random_seed=SEED,
        )
        self.index.set_num_threads(1)
        start = time.perf_counter()
        self.index.add_items(rows, num_threads=1)
        self.build_s = time.perf_counter() - start

    def search(self, kind, ef):
        queries = self.queries[kind]
        self.index.set_ef(ef)
        start = time.perf_counter()
        # All queries in one call, so that no time goes to Python.
        found, _ = self.index.knn_query(queries, k=K, num_threads=1)
        qps = len(queries) / (time.perf_counter() - start)
        return found.tolist(), qps, None


def exact(rows, queries):
    """The K nearest rows of every query."""
    import numpy as np

    found = []
    for start in range(0, len(queries), 100):
        scores = queries[start : start + 100] @ rows.T
        found.extend(np.argpartition(-scores, K - 1, axis=1)[:, :K].tolist())
    return found


def recall(truth, found):
    hits = sum(len(set(t) & set(f)) for t, f in zip(truth, found, strict=True))
    return hits / (K * len(truth))


def curves(sides, kind, truth, rounds):
    """One point per ef and side, from passes in turns."""
    for side in sides.values():
        side.search(kind, EF_SEARCH[0])
    points = {name: [] for name in sides}
    for ef in EF_SEARCH:
        speeds = {name: [] for name in sides}
        recalls = {}
        for turn in range(rounds):
            # Nobody always goes second.
            for name in SIDES if turn % 2 == 0 else reversed(SIDES):
                found, qps, claimed = sides[name].search(kind, ef)
                speeds[name].append(qps)
                recalls[name] = recall(truth, found)
                if claimed is not None and abs(claimed - recalls[name]) > 0.002:
                    sys.exit(f"search_rows counts recall {claimed}, numpy {recalls[name]}")
        for name, side_points in points.items():
            qps = statistics.median(speeds[name])
            side_points.append({"ef": ef, "recall": recalls[name], "qps": qps})
    return points


def at_recall(points, target):
    """Queries per second at a recall, between the points around it; None where out of reach.

    A curve that starts above the target counts with its first point, which does more than is asked.
    """
    if points[0]["recall"] >= target:
        return {"qps": points[0]["qps"], "starts_above": True}
    for low, high in zip(points, points[1:]):
        if low["recall"] < target <= high["recall"]:
            part = (target - low["recall"]) / (high["recall"] - low["recall"])
            slow, fast = math.log(high["qps"]), math.log(low["qps"])
            return {"qps": math.exp(fast + part * (slow - fast)), "starts_above": False}
    return None


def compare(points):
    """Speed of both at equal recall, and the ratio."""
    lines = []
    for target in TARGETS:
        ours, theirs = (at_recall(points[name], target) for name in SIDES)
        ratio = ours["qps"] / theirs["qps"] if ours and theirs else None
        lines.append({"recall": target, "diptych": ours, "hnswlib": theirs, "ratio": ratio})
    return lines


def show(kind, points, lines):
    print(f"\n{kind} queries   {SIDES[0]:>20} {SIDES[1]:>20}")
    print(f"{'ef_search':>14} {'recall@10':>10} {'QPS':>9} {'recall@10':>10} {'QPS':>9}")
    for ours, theirs in zip(*(points[name] for name in SIDES)):
        cells = f"{ours['ef']:>14}"
        for point in (ours, theirs):
            cells += f" {point['recall']:>10.4f} {point['qps']:>9.0f}"
        print(cells)
    starts_above = False
    for line in lines:
        cells = f"{'at recall':>9} {line['recall']:.2f}"
        for name in SIDES:
            reached = line[name]
            mark = "*" if reached and reached["starts_above"] else ""
            starts_above = starts_above or bool(mark)
            cells += f" {format(reached['qps'], '.0f') + mark if reached else 'not reached':>20}"
        print(cells + (f"   ratio {line['ratio']:.2f}" if line["ratio"] else ""))
    if starts_above:
        print("* starts above this recall: its first point")


def processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else "unknown"


def main():
    options = arguments()
    if options.check:
        refuse_if_busy(options, 0)
        return
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        command = [options.binary, "generate", folder]
        for name in ("rows", "dim", "queries"):
            command += [f"--{name}", str(getattr(options, name))]
        subprocess.run(command, check=True)

        def load(name):
            return np.fromfile(os.path.join(folder, name), "<f4").reshape(-1, options.dim)

        rows = load("rows.f32")
        queries = {kind: load(f"{kind}_queries.f32") for kind in QUERIES}
        truths = {kind: exact(rows, queries[kind]) for kind in QUERIES}
        # The products above may have used every core.
        load_before = refuse_if_busy(options, SETTLE_S)
        ours = Ours(options, folder)
        sides = {"diptych": ours, "hnswlib": Hnswlib(rows, queries, ours.params)}
        print(f"{options.rows} rows of dim {options.dim}, {processor()}, load {load_before:.1f}")
        print(f"{'build, s':>14} {ours.build_s:>20.1f} {sides['hnswlib'].build_s:>20.1f}")
        result = {
            "rows": options.rows,
            "dim": options.dim,
            "queries": options.queries,
            "k": K,
            "rounds": options.rounds,
            "params": ours.params,
            "processor": processor(),
            "load_before": load_before,
            "build_s": {name: side.build_s for name, side in sides.items()},
            "searches": {},
        }
        for kind in QUERIES:
            points = curves(sides, kind, truths[kind], options.rounds)
            lines = compare(points)
            show(kind, points, lines)
            result["searches"][kind] = {"points": points, "at_recall": lines}
        ours.process.stdin.close()
        ours.process.wait()
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()
