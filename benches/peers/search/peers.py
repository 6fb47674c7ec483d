"""One peer in a process of its own: builds its indexes, then answers searches, one per line.

    python peers.py NAME FOLDER DIM K PARAMS

Each library alone in a process: none changes the threads or the memory of another. A class below
makes one or more curves; how their parameters were chosen is told in benches/README.md. One thread
everywhere.
"""

import contextlib
import importlib.metadata
import json
import os
import sys
import tempfile
import time

import numpy as np

QUERIES = ["image", "text"]
SEED = 7
EF = [10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640, 896]


def resident_bytes():
    """Memory of this process without mapped files; None where the system does not tell."""
    try:
        with open("/proc/self/status", encoding="utf-8") as file:
            found = [int(line.split()[1]) for line in file if line.startswith("RssAnon:")]
    except OSError:
        return None
    return found[0] * 1024 if found else None


def built(rows, make, index_bytes):
    """What `make` returns, and what it cost.

    `index_bytes` tells codes and graph of the result without the f32 rows. Processor time beside
    the clock shows whether a library kept to one thread.
    """
    resident, clock, processor = resident_bytes(), time.perf_counter(), time.process_time()
    index = make()
    cost = {
        "build_s": time.perf_counter() - clock,
        "build_processor_s": time.process_time() - processor,
    }
    if resident is not None:
        cost["resident_growth_per_row"] = (resident_bytes() - resident) / len(rows)
    cost["bytes_per_row"] = index_bytes(index) / len(rows)
    return index, cost


class Hnswlib:
    package = "hnswlib"

    def __init__(self, rows, params, k):
        import hnswlib

        self.k = k

        def make():
            # Of unit rows the inner product is the cosine; this is its fastest form.
            index = hnswlib.Index(space="ip", dim=rows.shape[1])
            index.init_index(
                max_elements=len(rows),
                M=params["m"],
                ef_construction=params["ef_construction"],
                random_seed=SEED,
            )
            index.set_num_threads(1)
            index.add_items(rows, num_threads=1)
            return index

        self.index, cost = built(rows, make, lambda i: i.index_file_size() - rows.nbytes)
        self.costs = {"hnswlib": cost}
        self.curves = {"hnswlib": {"of": "hnswlib", "settings": [{"ef": ef} for ef in EF]}}

    def searcher(self, curve, setting):
        self.index.set_ef(setting["ef"])
        return lambda queries: self.index.knn_query(queries, k=self.k, num_threads=1)[0]


class Usearch:
    package = "usearch"

    def __init__(self, rows, params, k):
        from usearch.index import Index

        self.k, self.indexes, self.costs, self.curves = k, {}, {}, {}
        for dtype in ("f32", "bf16"):

            def make(dtype=dtype):
                index = Index(
                    ndim=rows.shape[1],
                    metric="ip",
                    dtype=dtype,
                    connectivity=params["m"],
                    expansion_add=params["ef_construction"],
                )
                index.add(np.arange(len(rows)), rows, threads=1)
                return index

            # Its bf16 form has no f32 rows at all.
            inside = rows.nbytes if dtype == "f32" else 0
            name = f"usearch_{dtype}"
            self.indexes[name], self.costs[name] = built(
                rows, make, lambda i, inside=inside: i.serialized_length - inside
            )
            self.curves[name] = {"of": name, "settings": [{"ef": ef} for ef in EF]}

    def searcher(self, curve, setting):
        index = self.indexes[curve]
        index.expansion_search = setting["ef"]
        return lambda queries: index.search(queries, self.k, threads=1).keys


class Faiss:
    package = "faiss-cpu"

    def __init__(self, rows, params, k):
        import faiss

        faiss.omp_set_num_threads(1)
        self.faiss, self.k = faiss, k
        n, dim = rows.shape
        metric = faiss.METRIC_INNER_PRODUCT

        def graph():
            index = faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_8bit, params["m"], metric)
            index.hnsw.efConstruction = params["ef_construction"]
            index.train(rows)
            index.add(rows)
            return index

        def lists():
            centers = faiss.IndexFlatIP(dim)
            index = faiss.IndexIVFPQFastScan(centers, dim, list_count(n), dim // 2, 4, metric)
            index.by_residual = True
            index.cp.seed = index.pq.cp.seed = SEED
            index.train(rows)
            index.add(rows)
            self.kept.append(centers)
            return index

        # Both re-rank with the same f32 rows, which are in memory once.
        self.rows = faiss.IndexFlatIP(dim)
        self.rows.add(rows)
        # What an index of faiss refers to has to live as long as it does.
        self.indexes, self.costs, self.kept = {}, {}, []
        for name, make in (("faiss_hnsw", graph), ("faiss_ivf", lists)):
            base, self.costs[name] = built(rows, make, self.written_bytes)
            self.kept.append(base)
            self.indexes[name] = faiss.IndexRefine(base, self.rows)
        hnsw = [{"ef": ef, "reorder": r} for ef in EF for r in (10, 20, 40) if r <= ef]
        ivf = [{"lists": s, "reorder": r} for s in steps(n) for r in (20, 40, 80, 160, 320)]
        self.curves = {
            "faiss_hnsw": {"of": "faiss_hnsw", "settings": hnsw},
            "faiss_ivf": {"of": "faiss_ivf", "settings": ivf},
            "faiss_ivf_batched": {"of": "faiss_ivf", "settings": ivf},
        }

    def written_bytes(self, index):
        """What writing the index would write, without the file."""
        count = 0

        def write(data):
            nonlocal count
            count += len(data)
            return len(data)

        writer = self.faiss.PyCallbackIOWriter(write)
        self.faiss.write_index(index, writer)
        del writer
        return count

    def searcher(self, curve, setting):
        faiss, k = self.faiss, self.k
        index = self.indexes[curve.removesuffix("_batched")]
        if "ef" in setting:
            base = faiss.SearchParametersHNSW(efSearch=setting["ef"])
        else:
            base = faiss.SearchParametersIVF(nprobe=setting["lists"])
        how = faiss.IndexRefineSearchParameters(
            k_factor=setting["reorder"] / k, base_index_params=base
        )
        if curve != "faiss_ivf":
            return lambda queries: index.search(queries, k, params=how)[1]

        def one_by_one(queries):
            scores = np.empty((len(queries), k), np.float32)
            found = np.empty((len(queries), k), np.int64)
            # Past the checks of the Python form, which cost as much as a fast query.
            pointer = faiss.swig_ptr
            for query, score, row in zip(queries, scores, found):
                index.search_c(1, pointer(query), k, pointer(score), pointer(row), how)
            return found

        return one_by_one


class Scann:
    package = "scann"

    def __init__(self, rows, params, k):
        import scann

        self.k = k
        n = len(rows)

        def make():
            builder = scann.scann_ops_pybind.builder(rows, k, "dot_product")
            leaves = list_count(n)
            builder = builder.set_n_training_threads(1)
            builder = builder.tree(leaves, 10, training_sample_size=min(n, 250_000))
            builder = builder.score_ah(2, anisotropic_quantization_threshold=0.2)
            return builder.reorder(100).build()

        self.index, cost = built(rows, make, self.written_bytes)
        settings = [{"lists": s, "reorder": r} for s in steps(n) for r in (20, 40, 80, 160, 320)]
        self.costs = {"scann": cost}
        self.curves = {
            name: {"of": "scann", "settings": settings} for name in ("scann", "scann_batched")
        }

    @staticmethod
    def written_bytes(index):
        """What it writes, without the f32 rows."""
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
            index.serialize(folder)
            files = [f for f in os.scandir(folder) if f.name != "dataset.npy"]
            return sum(file.stat().st_size for file in files)

    def searcher(self, curve, setting):
        # Final neighbors, neighbors that are re-ranked with f32 rows, leaves.
        how = (self.k, setting["reorder"], setting["lists"])
        if curve == "scann_batched":
            return lambda queries: self.index.search_batched(queries, *how)[0]
        search = self.index.search
        return lambda queries: [search(query, *how)[0] for query in queries]


PEERS = {"hnswlib": Hnswlib, "faiss": Faiss, "usearch": Usearch, "scann": Scann}


def list_count(n):
    """Lists of an inverted file: about three times the root, a power of two."""
    return 2 ** max(4, round(np.log2(3 * n**0.5)))


def steps(n):
    """How many lists are searched."""
    return [s for s in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128) if s <= list_count(n)]


def main():
    name, folder, dim, k, params = sys.argv[1:]
    # Libraries print whatever they like; answers go through a channel of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def load(file):
        return np.memmap(os.path.join(folder, file), "<f4", "r").reshape(-1, int(dim))

    def say(answer):
        print(json.dumps(answer), file=answers, flush=True)

    rows = load("rows.f32")
    queries = {kind: np.array(load(f"{kind}_queries.f32")) for kind in QUERIES}
    try:
        peer = PEERS[name](rows, json.loads(params), int(k))
    except ImportError as error:
        say({"missing": str(error)})
        return
    version = importlib.metadata.version(peer.package)
    say({"version": version, "costs": peer.costs, "curves": peer.curves})
    for line in sys.stdin:
        asked = json.loads(line)
        search, asking = peer.searcher(asked["curve"], asked["setting"]), queries[asked["kind"]]
        start = time.perf_counter()
        found = search(asking)
        qps = len(asking) / (time.perf_counter() - start)
        say({"found": [row.tolist() for row in found], "qps": qps})


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
