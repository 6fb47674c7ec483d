#!/usr/bin/env python3
"""The page, in a real Chromium, as people use it: every flow at the widths of a desk and of a phone, in
light and in dark, with axe-core looking for what keeps people out.

    tests/page/run.py target/debug/diptych [WORDS OF A FLOW'S NAME]

Makes an environment of its own (in DIPTYCH_CI_CACHE or ~/.cache/diptych-ci), starts the binary on a free
port of the loopback address, and says `N passed, N failed`. Screenshots are kept in `page/` beside the
folder of the binary. Without a Chromium, venv or npm nothing can be tried: that is said, and no failure.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
AXE = "axe-core@4.14.1"
BROWSERS = ["chromium", "chromium-browser", "google-chrome", "chrome"]


def cache():
    return Path(os.environ.get("DIPTYCH_CI_CACHE") or Path.home() / ".cache" / "diptych-ci")


def environment():
    """The interpreter of an environment with exactly what requirements.txt names, and axe-core."""
    wanted = HERE / "requirements.txt"
    name = hashlib.sha256(wanted.read_bytes() + (sys.version + AXE).encode()).hexdigest()[:16]
    folder = cache() / f"page-{name}"
    python = folder / "bin" / "python"
    axe = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not (folder / "complete").exists():
        venv.create(folder, with_pip=True, clear=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([python, *install, "-r", wanted], check=True)
        npm = ["npm", "install", "--silent", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run([*npm, "--prefix", folder, AXE], check=True, stdin=subprocess.DEVNULL)
        (folder / "complete").touch()
    return python, axe


def missing():
    """What is not here and cannot be done without."""
    browser = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser:
        return None, "no Chromium on the path, nor in $CHROMIUM"
    if not shutil.which("npm"):
        return None, "no npm"
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        return None, "no venv"
    return browser, None


def main():
    if len(sys.argv) < 2 or not Path(sys.argv[1]).is_file():
        sys.exit("usage: tests/page/run.py PATH/TO/diptych, a binary that was built before")
    binary = Path(sys.argv[1]).resolve()
    browser, why = missing()
    if why:
        print(f"the page is not tried: {why}")
        return
    python, axe = environment()
    shots = binary.parent.parent / "page"
    command = [python, HERE / "flows.py", binary, browser, axe, shots, *sys.argv[2:]]
    sys.exit(subprocess.run(command, timeout=1200).returncode)


if __name__ == "__main__":
    main()
