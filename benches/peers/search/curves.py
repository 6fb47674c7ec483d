"""Recall against speed: which settings are worth their time, and speed at equal recall."""

import math

TARGETS = {".95": 0.95, ".99": 0.99}
KINDS = {"img": "image", "txt": "text"}
# The goals name hnswlib, and the best of these.
BEST_OF = ["faiss_hnsw", "faiss_ivf", "scann"]


def recall(truth, found):
    """Part of the exact answers that were found; a row found twice counts once."""
    hits = sum(len(set(t) & set(f)) for t, f in zip(truth, found, strict=True))
    return hits / sum(map(len, truth))


def frontier(points):
    """The points that no other beats in both recall and speed, least recall first."""
    best, kept = -1.0, []
    for point in sorted(points, key=lambda p: (-p["qps"], -p["recall"])):
        if point["recall"] > best:
            best = point["recall"]
            kept.append(point)
    return kept


def worth_repeating(points, slack=1.3):
    """Numbers of the settings that a first look does not rule out.

    A setting falls out when another one has its recall and is faster by more than a busy moment
    explains, or when it comes long after the highest recall that counts.
    """
    enough = [p["qps"] for p in points if p["recall"] >= max(TARGETS.values()) + 0.004]
    slowest = max(enough, default=0.0) / slack
    return [
        i
        for i, point in enumerate(points)
        if point["qps"] >= slowest
        and not any(
            p["recall"] >= point["recall"] and p["qps"] > slack * point["qps"] for p in points
        )
    ]


def at_recall(points, target):
    """Queries per second at a recall, between the points around it; None where out of reach.

    A curve that starts above the target counts with its first point, which does more than is asked.
    """
    points = frontier(points)
    if points[0]["recall"] >= target:
        return {"qps": points[0]["qps"], "starts_above": True}
    for low, high in zip(points, points[1:]):
        if low["recall"] < target <= high["recall"]:
            part = (target - low["recall"]) / (high["recall"] - low["recall"])
            slow, fast = math.log(high["qps"]), math.log(low["qps"])
            return {"qps": math.exp(fast + part * (slow - fast)), "starts_above": False}
    return None


def reached(curves):
    """`{curve: {img: {.95: {qps, starts_above}}}}` of all curves."""
    return {
        name: {
            kind: {key: at_recall(kinds[of], target) for key, target in TARGETS.items()}
            for kind, of in KINDS.items()
        }
        for name, kinds in curves.items()
    }


def families(names):
    """Which curves a name in the ratios stands for: single, and with batches where they help."""
    peers = {name: [name] for name in names if not name.startswith("diptych")}
    for family in ("faiss", "usearch"):
        of_family = [n for n in peers if n.startswith(f"{family}_") and not n.endswith("_batched")]
        if of_family:
            peers[family] = of_family
    best = [name for name in BEST_OF if name in names]
    if best:
        peers["best"] = best
    batched = [n + "_batched" if n + "_batched" in names else n for n in best]
    if batched != best:
        peers["best_batched"] = batched
    return peers


def ratios(at):
    """`{peer or best: {img: {.95: ours / theirs}}}`; None where one of them does not get there."""

    def ratio(curves, kind, key):
        ours = at["diptych"][kind][key]
        theirs = [at[name][kind][key]["qps"] for name in curves if at[name][kind][key]]
        return ours["qps"] / max(theirs) if ours and theirs else None

    return {
        peer: {kind: {key: ratio(curves, kind, key) for key in TARGETS} for kind in KINDS}
        for peer, curves in families(at).items()
    }


def two_threads(at):
    """`{img: {.95: two threads / one}}`."""

    def ratio(kind, key):
        one, two = (at[name][kind][key] for name in ("diptych", "diptych_two_threads"))
        return two["qps"] / one["qps"] if one and two else None

    return {kind: {key: ratio(kind, key) for key in TARGETS} for kind in KINDS}
