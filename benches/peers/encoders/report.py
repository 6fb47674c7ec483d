"""Tables of one comparison, from its figures as `compare.py --json` writes them.

    python report.py FIGURES.json [--markdown FILE]

No figure in a document is typed by hand: `--markdown` replaces the part of FILE between the marks
`<!-- encoders MODELS MARK -->` and `<!-- end of encoders MODELS MARK -->`, or adds it at the end, so that each
model may be measured in a run of its own.
"""

import argparse
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import goals
from models import MODELS
from shared import put_between_marks, table


def distinct(rows, *keys):
    """The values of keys in the order of their first row."""
    return list(dict.fromkeys(tuple(row[key] for key in keys) for row in rows))


def speeds(rows, model, threads):
    """One line for each engine: items per second (processor ms for each item)."""
    of = [row for row in rows if (row["model"], row["threads"]) == (model, threads)]
    cases = distinct(of, "kind", "batch")
    at = {(row["engine"], row["kind"], row["batch"]): row for row in of}

    def cell(row):
        return f"{row['per_s']:,.1f} ({row['cpu_ms'] / row['batch']:,.1f})" if row else "-"

    header = [f"{MODELS[model]['name']}, threads: {threads}"]
    header += [f"{kind} b{batch}" for kind, batch in cases]
    names = [name for (name,) in distinct(of, "engine")]
    return table(header, [[n, *(cell(at.get((n, *case))) for case in cases)] for n in names])


def accuracy(rows, model):
    """One line for each engine: 1 - least cosine, and the largest difference."""
    of = [row for row in rows if row["model"] == model and "least_cosine" in row]
    if not of:
        return []
    cases = distinct(of, "kind")
    at = {(row["engine"], row["kind"]): row for row in of}

    def cell(row):
        return f"{1 - row['least_cosine']:.0e}, {row['largest_difference']:.0e}" if row else "-"

    header = [f"{MODELS[model]['name']}: 1 - cosine, difference", *(kind for (kind,) in cases)]
    names = [name for (name,) in distinct(of, "engine")]
    return table(header, [[n, *(cell(at.get((n, *case))) for case in cases)] for n in names])


def ratios(rows):
    header = ["ours to theirs", "threads", "peer", "ratio", "goal", ""]

    def cells(line):
        case = f"{line['model']} {line['precision']} {line['kind']} b{line['batch']}"
        met = "met" if line["ratio"] >= line["goal"] else "missed"
        return [
            case, str(line["threads"]), line["peer"], f"{line['ratio']:.2f}", f"{line['goal']:.2f}",
            met,
        ]

    lines = goals.lines(rows)
    return table(header, [cells(line) for line in lines]) if lines else []


def startups(found):
    header = ["start to the first text", "s", "checkpoint, MiB", "packed, MiB", "resident, MiB"]
    header += ["of it anonymous", "resident / packed", "goals"]

    def cells(of):
        ratio = of["VmRSS"] / of["packed_mb"]
        missed = [
            what
            for what, over in [
                ("start", of["first_embedding_s"] > goals.FIRST_EMBEDDING_S),
                ("memory", ratio > goals.RESIDENT),
            ]
            if over
        ]
        return [
            f"{MODELS[of['model']]['name']}, {of['engine']}", f"{of['first_embedding_s']:.2f}",
            f"{of['checkpoint_mb']:.0f}", f"{of['packed_mb']:.0f}", f"{of['VmRSS']:.0f}",
            f"{of['RssAnon']:.0f}", f"{ratio:.2f}",
            " and ".join(missed) + " missed" if missed else "met",
        ]

    return table(header, [cells(of) for of in found])


def head(result):
    lines = [
        f"{result['rounds']} rounds in turns; {result['processor']}, {result['cores']} cores, load"
        f" {result['load_before']:.1f} before and {result['load_after']:.1f} after."
    ]
    versions = ", ".join(f"{name} {of}" for name, of in result.get("versions", {}).items())
    if versions:
        lines += ["", f"Versions: {versions}."]
    for name, why in result.get("missing", {}).items():
        lines += ["", f"Not measured: {name}: {why}."]
    return lines


def summary(result):
    """All of it, as Markdown that reads well in a terminal, too."""
    parts = [head(result)]
    if "startup" in result:
        parts.append(startups(result["startup"]))
    rows = result.get("rows", [])
    if rows:
        parts.append(["Items per second, and in brackets processor milliseconds for each."])
        parts += [speeds(rows, *case) for case in distinct(rows, "model", "threads")]
        parts += [accuracy(rows, model) for (model,) in distinct(rows, "model")]
        parts.append(ratios(rows))
        parts += [[f"Less accurate than it may be: {line}."] for line in goals.inaccurate(rows)]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def put_markdown(result, path):
    rows = result.get("rows", [])
    models = [model for (model,) in distinct(rows, "model")]
    # One batch of pictures alone has a place of its own.
    batches = {row["batch"] for row in rows if row["kind"] == "image"}
    alone = [f"b{batch}" for batch in batches if len(batches) == 1]
    alone += ["startup"] * ("startup" in result)
    # Tables of several machines stand in one document.
    if result.get("mark"):
        alone.append(result["mark"])
    put_between_marks(path, " ".join(["encoders", *models, *alone]), summary(result))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figures", help="what compare.py --json wrote")
    parser.add_argument("--markdown", metavar="FILE", help="document to put the tables into")
    options = parser.parse_args()
    with open(options.figures, encoding="utf-8") as file:
        result = json.load(file)
    if options.markdown:
        put_markdown(result, options.markdown)
    else:
        print(summary(result), end="")


if __name__ == "__main__":
    main()
