"""Data of a comparison, and the exact answers, which are computed once for each data."""

import contextlib
import hashlib
import json
import os
import subprocess

import numpy as np

SEED = 7
QUERIES = ["image", "text"]
BLOCK = 16_384


def generate(options, folder):
    """Has our binary write rows and queries; returns the queries."""
    command = [options.binary, "generate", folder]
    for name in ("rows", "dim", "queries"):
        command += [f"--{name}", str(getattr(options, name))]
    subprocess.run(command, check=True)


def load(folder, name, dim):
    """A file of rows; of a million only what is touched is in memory."""
    return np.memmap(os.path.join(folder, name), "<f4", "r").reshape(-1, dim)


def digest(folder):
    """Of all files: the truth of other data is not the truth of this."""
    total = hashlib.blake2b(digest_size=16)
    for name in ["rows.f32", *(f"{kind}_queries.f32" for kind in QUERIES)]:
        with open(os.path.join(folder, name), "rb") as file:
            while part := file.read(1 << 24):
                total.update(part)
    return total.hexdigest()


def exact(rows, queries, k):
    """The `k` nearest rows of every query, in blocks of rows."""
    best = np.full((len(queries), k), -np.inf, np.float32)
    found = np.zeros((len(queries), k), np.int64)
    for start in range(0, len(rows), BLOCK):
        scores = queries @ rows[start : start + BLOCK].T
        ids = np.broadcast_to(np.arange(start, start + scores.shape[1]), scores.shape)
        scores, ids = np.hstack([best, scores]), np.hstack([found, ids])
        kept = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        best, found = (np.take_along_axis(x, kept, axis=1) for x in (scores, ids))
    return found.tolist()


def truths(options, folder, k):
    """`{kind: exact answers}`, from the cache where it holds those of this very data."""
    name = f"truth-seed{SEED}-rows{options.rows}-dim{options.dim}-queries{options.queries}.json"
    path, of = os.path.join(options.cache, name), digest(folder)
    with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
        kept = json.load(file)
        if kept["of"] == of and kept["k"] == k:
            return kept["truths"]
    rows = load(folder, "rows.f32", options.dim)
    found = {
        kind: exact(rows, load(folder, f"{kind}_queries.f32", options.dim), k) for kind in QUERIES
    }
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump({"of": of, "k": k, "truths": found}, file)
    os.replace(path + ".new", path)
    return found
