#!/usr/bin/env python3
"""The doors of other services, tried with their own clients.

    tests/clients/run.py target/debug/diptych

Makes a virtual environment of its own (in DIPTYCH_CI_CACHE or ~/.cache/diptych-ci), starts the binary
on a free port of the loopback address, and says `N passed, N failed`.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import serving


def main():
    binary = serving.binary()
    python = serving.environment(HERE / "requirements.txt") / "python"
    # A queue of two, so that the checks can fill it.
    with serving.serving(binary, "--queue", "2") as url:
        checked = subprocess.run([python, HERE / "checks.py", url], timeout=240)
    sys.exit(checked.returncode)


if __name__ == "__main__":
    main()
