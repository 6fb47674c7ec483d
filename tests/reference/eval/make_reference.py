#!/usr/bin/env python3
"""What scikit-learn and CLIP_benchmark make of small seeded arrays.

    pip install -r requirements.txt
    python make_reference.py            # writes ../data/eval/*.json

The outputs are committed and read by engine/src/metrics/tests.rs and engine/src/logistic/tests.rs,
so that the tests need no Python.
"""

import json
import pathlib

import numpy as np
import torch
from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, top_k_accuracy_score

SEED = 20261127
DATA = pathlib.Path(__file__).parent.parent / "data" / "eval"


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class Given:
    """A model whose towers answer with given rows."""

    def __init__(self, images, texts):
        self.images, self.texts = images, texts

    def encode_image(self, batch):
        return self.images[batch]

    def encode_text(self, tokens):
        return self.texts[tokens]


def retrieval(random):
    pictures, dim = 30, 8
    images = unit(random.normal(size=(pictures, dim)))
    owners = np.sort(np.concatenate([np.arange(pictures), random.integers(0, pictures, 50)]))
    texts = unit(images[owners] + 0.9 * random.normal(size=(len(owners), dim)))
    batch = (torch.arange(pictures), [np.flatnonzero(owners == i).tolist() for i in range(pictures)])
    model = Given(torch.tensor(images), torch.tensor(texts))
    figures = zeroshot_retrieval.evaluate(
        model, [batch], lambda ids: torch.tensor(ids), "cpu", amp=False, recall_k_list=[1, 5, 10])
    scores = texts.astype(np.float64) @ images.astype(np.float64).T
    rank = lambda row, own: min(int((row > row[i]).sum()) for i in own)
    image_ranks = [rank(scores[t], [owner]) for t, owner in enumerate(owners)]
    text_ranks = [rank(scores[:, i], np.flatnonzero(owners == i)) for i in range(pictures)]
    return {
        "images": images.tolist(), "texts": texts.tolist(), "owners": owners.tolist(),
        "clip_benchmark": figures,
        "image_median_rank": float(np.median(image_ranks) + 1),
        "text_median_rank": float(np.median(text_ranks) + 1),
        "image_mrr": float(np.mean(1 / (np.array(image_ranks) + 1))),
        "text_mrr": float(np.mean(1 / (np.array(text_ranks) + 1))),
    }


def zero_shot(random):
    classes, templates, dim, pictures = 7, 3, 8, 60
    prompts = unit(random.normal(size=(classes * templates, dim)))
    labels = random.integers(0, classes, pictures)
    labels[labels == 6] = 5                             # one class has no picture
    means = prompts.reshape(classes, templates, dim).mean(axis=1)
    images = unit(means[labels] + 0.5 * random.normal(size=(pictures, dim)))
    model = Given(torch.tensor(images), torch.tensor(prompts))
    names = [str(i) for i in range(classes)]
    tokens = iter(range(classes))
    tokenizer = lambda texts: torch.arange(templates) + templates * next(tokens)
    head = zeroshot_classification.zero_shot_classifier(
        model, tokenizer, names, ["{c}"] * templates, "cpu", amp=False)
    logits = torch.tensor(images) @ head
    acc1, acc5 = zeroshot_classification.accuracy(logits, torch.tensor(labels), topk=(1, 5))
    predicted = logits.argmax(axis=1).numpy()
    assert abs(acc1 - accuracy_score(labels, predicted)) < 1e-6
    assert abs(acc5 - top_k_accuracy_score(labels, logits.numpy(), k=5, labels=range(classes))) < 1e-6
    return {
        "prompts": prompts.tolist(), "templates": templates, "images": images.tolist(),
        "labels": labels.tolist(), "predicted": predicted.tolist(), "head": head.T.tolist(),
        "acc1": accuracy_score(labels, predicted),
        "acc5": top_k_accuracy_score(labels, logits.numpy(), k=5, labels=range(classes)),
        "mean_per_class_recall": balanced_accuracy_score(labels, predicted),
    }


def logistic(random, classes, rows, dim):
    centers = random.normal(size=(classes, dim))
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, rows - classes)])
    # Embeddings have a large mean in common.
    samples = unit(3 + centers[labels] + 1.5 * random.normal(size=(rows, dim)))
    probes = unit(3 + 2 * random.normal(size=(10, dim)))
    fits = []
    for c in [0.1, 1.0, 100.0, 10000.0]:
        # Newton's method comes closer to the minimum than scikit-learn's own L-BFGS.
        fit = LogisticRegression(C=c, tol=1e-11, max_iter=100000, solver="newton-cg")
        fit.fit(samples.astype(np.float64), labels)
        fits.append({
            "c": c, "coef": fit.coef_.tolist(), "intercept": fit.intercept_.tolist(),
            "probabilities": fit.predict_proba(probes.astype(np.float64)).tolist(),
            "steps": int(fit.n_iter_.max()),
        })
    return {"rows": samples.tolist(), "labels": labels.tolist(), "probes": probes.tolist(),
            "classes": classes, "dim": dim, "fits": fits}


def short(value):
    """The shortest digits that give a float32 back; others as they are."""
    if isinstance(value, list):
        return [short(item) for item in value]
    if isinstance(value, dict):
        return {key: short(item) for key, item in value.items()}
    if isinstance(value, float) and float(np.float32(value)) == value:
        return float(str(np.float32(value)))
    return value


def main():
    random = np.random.default_rng(SEED)
    DATA.mkdir(parents=True, exist_ok=True)
    cases = {
        "retrieval": retrieval(random),
        "zero_shot": zero_shot(random),
        "logistic": [logistic(random, 4, 60, 6), logistic(random, 2, 40, 5)],
    }
    for name, case in cases.items():
        path = DATA / f"{name}.json"
        path.write_text(json.dumps(short(case), separators=(",", ":")) + "\n")
        print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main()
