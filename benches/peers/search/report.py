"""Tables and the plot of one comparison, from its figures as `compare.py --json` writes them.

    python report.py FIGURES.json [--markdown FILE] [--plot FILE.svg]

No figure in a document is typed by hand: `--markdown` replaces the part of FILE between the two
marks of this size of data (`<!-- search 100000 x 512 -->` and `<!-- end of search ... -->`), or adds
such a part at the end.
"""

import argparse
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from curves import KINDS, TARGETS, frontier
from shared import put_between_marks, table

LEAST_PLOTTED_RECALL = 0.85


def number(value, digits=0):
    return "-" if value is None else f"{value:,.{digits}f}"


def speed(reached):
    """A cell: queries per second, with a mark where the curve starts above the recall."""
    if not reached:
        return "not reached"
    return number(reached["qps"]) + ("*" if reached["starts_above"] else "")


def cells():
    return [(kind, key) for kind in KINDS for key in TARGETS]


def speeds(result):
    at = result["at_recall"]
    header = ["queries per second at recall@10"] + [f"{kind} {key}" for kind, key in cells()]
    return table(header, [[name] + [speed(at[name][k][t]) for k, t in cells()] for name in at])


def ratios(result):
    header = ["one thread, Diptych to"] + [f"{kind} {key}" for kind, key in cells()]
    rows = [[p, *(number(of[k][t], 2) for k, t in cells())] for p, of in result["ratios"].items()]
    two = result["two_threads"]
    rows.append(["itself: two threads to one", *(number(two[k][t], 2) for k, t in cells())])
    return table(header, rows)


def costs(result):
    header = ["index", "build, s", "processor, s", "bytes per row", "resident growth per row"]
    keys = ["build_s", "build_processor_s", "bytes_per_row", "resident_growth_per_row"]
    rows = [
        [name, *(number(cost.get(key), 1 if "_s" in key else 0) for key in keys)]
        for name, cost in result["costs"].items()
    ]
    return table(header, rows)


def head(result):
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return [
        f"{result['rows']:,} rows of dim {result['dim']}, {result['queries']:,} queries of each"
        f" kind, {result['rounds']} rounds in turns; {result['processor']},"
        f" {result['cores']} cores, load {result['load_before']:.1f} before and"
        f" {result['load_after']:.1f} after.",
        "",
        f"Versions: {versions}.",
    ]


def notes(result):
    lines = [
        "Bytes per row: index and codes beside the f32 rows, as the library tells or writes them;"
        " resident growth: what the process grew by, with a copy of the rows where the library"
        " keeps one (4 x dim bytes).",
        "Curves with `_batched` get all queries in one call of a library that gains from it.",
        f"Build, hnswlib's time to ours: {number(result['build_ratio'], 2)}. Our bytes per row:"
        f" {number(result['bytes_per_row'])} ({result['bytes_per_row_is']}).",
    ]
    at = result["at_recall"]
    marked = [1 for of in at.values() for k, t in cells() if of[k][t] and of[k][t]["starts_above"]]
    if marked:
        lines.append("`*`: the curve starts above this recall; this is its first point.")
    return lines


def summary(result):
    """Everything but the single points, as Markdown that reads well in a terminal, too."""
    parts = [head(result), speeds(result), ratios(result), costs(result)]
    parts += [[line] for line in notes(result)]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def points(result):
    """The frontier of every curve."""
    lines = []
    for name, kinds in result["curves"].items():
        for kind, of in KINDS.items():
            lines += ["", f"{name}, {kind} queries"]
            for point in frontier(kinds[of]):
                how = " ".join(f"{key} {value}" for key, value in point["setting"].items())
                lines.append(f"  {how:<24} {point['recall']:>8.4f} {point['qps']:>10,.0f}")
    return "\n".join(lines) + "\n"


def put_markdown(result, path):
    put_between_marks(path, f"search {result['rows']} x {result['dim']}", summary(result))


def plot(result, path):
    """Draws queries per second against recall, one panel for each kind of queries."""
    import matplotlib

    matplotlib.use("svg")
    # Equal figures give equal files.
    matplotlib.rcParams["svg.hashsalt"] = "diptych"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(KINDS), figsize=(12, 5), sharey=True)
    colors = pyplot.get_cmap("tab10").colors
    for panel, (kind, of) in zip(panels, KINDS.items()):
        for i, (name, kinds) in enumerate(result["curves"].items()):
            kept = [p for p in frontier(kinds[of]) if p["recall"] >= LEAST_PLOTTED_RECALL]
            ours = name.startswith("diptych")
            aside = name.endswith("_batched") or name.endswith("_two_threads")
            panel.plot(
                [p["recall"] for p in kept],
                [p["qps"] for p in kept],
                label=name.replace("_", " "),
                color=colors[i % len(colors)],
                linewidth=2.5 if ours and not aside else 1.2,
                linestyle="--" if aside else "-",
                marker="o",
                markersize=3,
            )
        panel.set_yscale("log")
        panel.set_xlim(LEAST_PLOTTED_RECALL, 1.0)
        panel.set_xlabel(f"recall@{result['k']}")
        panel.set_title({"img": "image queries", "txt": "text queries"}[kind])
        panel.grid(True, which="both", alpha=0.25)
    panels[0].set_ylabel("queries per second (one thread)")
    panels[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8)
    figure.suptitle(f"{result['rows']:,} rows of dim {result['dim']}, {result['processor']}")
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figures", help="what compare.py --json wrote")
    parser.add_argument("--markdown", metavar="FILE", help="document to put the tables into")
    parser.add_argument("--plot", metavar="FILE", help="SVG of recall against speed")
    options = parser.parse_args()
    with open(options.figures, encoding="utf-8") as file:
        result = json.load(file)
    if options.markdown:
        put_markdown(result, options.markdown)
    if options.plot:
        plot(result, options.plot)
    if not options.markdown and not options.plot:
        print(summary(result), end="")


if __name__ == "__main__":
    main()
