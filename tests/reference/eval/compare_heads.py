#!/usr/bin/env python3
"""Heads of a running server beside scikit-learn's LogisticRegression, on the same embeddings.

    pip install -r requirements.txt
    diptych index FOLDER --collection compare
    diptych serve
    python compare_heads.py FOLDER compare [--url http://127.0.0.1:7700] [--each 400] [--seed 0]

FOLDER has a folder of pictures for each class. A fifth of each class is measured on, the others are learned
from, with the same regularization on both sides. It ends with 1 where the accuracies are half a point or
more apart.
"""

import argparse
import json
import pathlib
import sys
import urllib.parse
import urllib.request

import numpy as np
from sklearn.linear_model import LogisticRegression

# Ids in one question.
AT_ONCE = 500
# Points of accuracy, of a hundred.
ALLOWED = 0.5


class Server:
    def __init__(self, url, collection):
        self.base = f"{url}/v1/collections/{collection}"

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        kind = {"content-type": "application/json"}
        request = urllib.request.Request(self.base + path, data, kind, method=method)
        with urllib.request.urlopen(request, timeout=600) as reply:
            text = reply.read()
        return json.loads(text) if text else None

    def rows(self, ids):
        """Embeddings as the server keeps them, `[ids, dim]`."""
        def one(id):
            path = f"/items/{urllib.parse.quote(id, safe='')}?embeddings=true"
            return self.ask("GET", path)["embeddings"]["shared"]
        return np.array([one(id) for id in ids], dtype=np.float32)

    def told(self, c, train, labels, test):
        """What a head tells that learns with this regularization."""
        examples = [{"label": label, "id": id} for id, label in zip(train, labels)]
        body = {"examples": examples, "regularization": 1 / c}
        used = self.ask("PUT", "/heads/compare", body)["used"]
        said = []
        for at in range(0, len(test), AT_ONCE):
            body = {"ids": test[at:at + AT_ONCE], "k": 1}
            said += self.ask("POST", "/heads/compare/predict", body)["predictions"]
        return np.array([one["labels"][0]["label"] for one in said]), used["converged"]


def split(folder, each, random):
    """Ids to learn from and to measure on, each with its label; `diptych index` names items by their paths."""
    train, test = [], []
    for of_class in sorted(path for path in folder.resolve().iterdir() if path.is_dir()):
        paths = sorted(path for path in of_class.iterdir() if path.is_file())
        chosen = [(str(paths[i]), of_class.name) for i in random.permutation(len(paths))[:each]]
        test += chosen[:len(chosen) // 5]
        train += chosen[len(chosen) // 5:]
    return [(list(ids), np.array(labels)) for ids, labels in (zip(*train), zip(*test))]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("collection")
    parser.add_argument("--url", default="http://127.0.0.1:7700")
    parser.add_argument("--each", type=int, default=400, help="pictures of each class")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--c", type=float, nargs="+", default=[0.1, 1, 10, 100, 1000])
    args = parser.parse_args()
    server = Server(args.url, args.collection)
    (train, labels), (test, truth) = split(args.folder, args.each, np.random.default_rng(args.seed))
    print(f"{len(train)} pictures to learn from, {len(test)} to measure on")
    rows, held_out = (server.rows(ids).astype(np.float64) for ids in (train, test))
    worst = 0.0
    try:
        print("| C | head | scikit-learn | same label | the head converged |\n|---|---|---|---|---|")
        for c in args.c:
            told, converged = server.told(c, train, labels, test)
            fit = LogisticRegression(C=c, tol=1e-8, max_iter=100_000)
            theirs = fit.fit(rows, labels).predict(held_out)
            ours, peers = 100 * (told == truth).mean(), 100 * (theirs == truth).mean()
            worst = max(worst, abs(ours - peers))
            same = 100 * (told == theirs).mean()
            print(f"| {c:g} | {ours:.2f} | {peers:.2f} | {same:.2f} | {converged} |", flush=True)
    finally:
        server.ask("DELETE", "/heads/compare")
    print(f"at most {worst:.2f} points apart, less than {ALLOWED} are allowed")
    return int(worst >= ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
