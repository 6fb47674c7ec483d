"""Every flow, at each size: flows.py BINARY CHROMIUM AXE SHOTS [WORDS]."""

import shutil
import sys
import time
import traceback
from pathlib import Path

from playwright.sync_api import sync_playwright

import flows_label
import flows_look
import flows_search
import flows_ways
from stage import SIZES, Server, look

FLOWS = [*flows_search.FLOWS, *flows_ways.FLOWS, *flows_label.FLOWS, *flows_look.FLOWS]
# Chromium's sandbox does not run as root, where tests often do; the page is our own.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


def main():
    binary, chromium, axe, shots, *words = sys.argv[1:]
    axe, shots = Path(axe).read_text(), Path(shots)
    shots.mkdir(parents=True, exist_ok=True)
    # What another model made is refused, and flows write into what they find.
    shutil.rmtree(shots / "data", ignore_errors=True)
    chosen = [f for f in FLOWS if all(word in f.__name__ for word in words)]
    failed = 0
    with sync_playwright() as play, Server(binary, "demo", "--data", shots / "data") as server:
        browser = play.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        for flow in chosen:
            for size in SIZES:
                began = time.monotonic()
                try:
                    with look(browser, server, axe, shots, size) as seen:
                        flow(seen)
                    said = "ok"
                except Exception:
                    failed += 1
                    said = "FAILED\n" + traceback.format_exc()
                print(f"{flow.__name__} ({size}): {said} in {time.monotonic() - began:.1f} s", flush=True)
        browser.close()
    print(f"{len(chosen) * len(SIZES) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
