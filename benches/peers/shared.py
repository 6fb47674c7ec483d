"""What the comparisons with peers share."""

import os
import platform
import sys
import time

BUSY = 1.5


def refuse_if_busy(options, wait_s):
    """Ends the program on a busy machine, after giving our own build time to fade."""
    deadline = time.monotonic() + wait_s
    while (load := os.getloadavg()[0]) > BUSY and not options.busy_ok:
        if time.monotonic() >= deadline:
            sys.exit(f"the load is {load:.1f}, above {BUSY}: wait, or say --busy-ok")
        time.sleep(5)
    return load


def processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or "unknown"


def table(header, rows):
    """Lines of a Markdown table whose columns also line up as plain text."""
    cells = [header, *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]

    def line(row):
        first, *others = (text.ljust(w) if i == 0 else text.rjust(w)
                          for i, (text, w) in enumerate(zip(row, widths)))
        return "| " + " | ".join([first, *others]) + " |"

    rule = "|" + "|".join("-" * (w + 1) + (":" if i else "-") for i, w in enumerate(widths)) + "|"
    return [line(header), rule, *map(line, rows)]


def put_between_marks(path, what, text):
    """Puts text between the marks of its name in a document, or with them at its end."""
    start, end = f"<!-- {what} -->\n", f"<!-- end of {what} -->\n"
    document = ""
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            document = file.read()
    before, found, rest = document.partition(start)
    _, closed, after = rest.partition(end)
    if found and not closed:
        raise SystemExit(f"{path} has the mark {start.strip()} without {end.strip()}")
    if not found and before:
        before += "\n"
    with open(path, "w", encoding="utf-8") as file:
        file.write(before + start + "\n" + text + "\n" + end + after)
