"""What our towers are to reach beside their peers, as ratios of speed at equal threads."""

# From the start of a process to its first embedding, and its memory for each byte of packed weights.
FIRST_EMBEDDING_S = 1.5
RESIDENT = 1.3

# What is compared (kind, batch), our precision, the engines of which the better one counts, and
# the least ratio.
IMAGE = [
    ("f32", ["onnxruntime f32"], {1: 1.3, 8: 1.08}),
    ("bf16", ["openvino bf16"], {1: 1.15, 8: 1.05}),
    ("int8", ["onnxruntime int8", "openvino int8"], {1: 1.35, 8: 1.15}),
]
TEXT = [("int8", ["onnxruntime int8", "openvino int8"], {1: 1.3, 8: 1.05})]
MIXED = [
    ("f32", ["onnxruntime f32", "openvino f32"], {32: 1.5}),
    ("bf16", ["openvino bf16"], {32: 1.5}),
    ("int8", ["onnxruntime int8", "openvino int8"], {32: 1.5}),
]


def of_kind(kind):
    return {"image": IMAGE, "mixed": MIXED}.get(kind, TEXT)


def lines(rows):
    """One entry for each goal whose engines were measured: its ratio, and whether it is met."""
    speeds = {}
    for row in rows:
        case = (row["model"], row["threads"], row["kind"], row["batch"])
        speeds.setdefault(case, {})[row["engine"]] = row["per_s"]
    found = []
    for (model, threads, kind, batch), by_engine in speeds.items():
        for precision, theirs, least in of_kind(kind):
            ours = by_engine.get(f"diptych {precision}")
            peers = {name: by_engine[name] for name in theirs if name in by_engine}
            if ours is None or not peers or batch not in least:
                continue
            best = max(peers, key=peers.get)
            found.append({
                "model": model, "threads": threads, "kind": kind, "batch": batch,
                "precision": precision, "peer": best, "ratio": ours / peers[best],
                "goal": least[batch],
            })
    return found


# Accuracy of unit embeddings to torch f32: the least cosine; int8 is compared with a peer.
LEAST_COSINE = {"diptych f32": 0.999999, "diptych bf16": 0.9999}
LARGEST_DIFFERENCE = {"diptych f32": 2e-6}


def inaccurate(rows):
    """Sentences about our figures that miss the bars of accuracy."""
    found, at = [], {}
    for row in rows:
        at.setdefault((row["model"], row["kind"]), {})[row["engine"]] = row
    for (model, kind), by_engine in at.items():
        least = dict(LEAST_COSINE)
        peer = by_engine.get("onnxruntime int8", {}).get("least_cosine")
        if peer is not None:
            least["diptych int8"] = peer
        for name, row in by_engine.items():
            cosine, difference = row.get("least_cosine"), row.get("largest_difference")
            if cosine is not None and cosine < least.get(name, -1):
                found.append(
                    f"{model} {kind}, {name}: cosine {cosine:.7f}, expected {least[name]:.7f}"
                )
            most = LARGEST_DIFFERENCE.get(name)
            if difference is not None and most is not None and difference > most:
                found.append(f"{model} {kind}, {name}: differs by {difference:.1e}, at most {most}")
    return found
