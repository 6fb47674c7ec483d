#!/usr/bin/env python3
"""The doors of other services, tried with their own clients.

    tests/clients/run.py target/debug/diptych

Makes a virtual environment of its own (in DIPTYCH_CI_CACHE or ~/.cache/diptych-ci), starts the binary
on a free port of the loopback address, and says `N passed, N failed`.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent


def environment():
    """The interpreter of an environment with exactly what requirements.txt names."""
    wanted = HERE / "requirements.txt"
    name = hashlib.sha256(wanted.read_bytes() + sys.version.encode()).hexdigest()[:16]
    cache = Path(os.environ.get("DIPTYCH_CI_CACHE") or Path.home() / ".cache" / "diptych-ci")
    folder = cache / f"clients-{name}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        venv.create(folder, with_pip=True, clear=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([python, *install, "-r", wanted], check=True)
        (folder / "complete").touch()
    return python


def main():
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        sys.exit("usage: tests/clients/run.py PATH/TO/diptych, a binary that was built before")
    binary, python = Path(sys.argv[1]).resolve(), environment()
    with tempfile.TemporaryDirectory() as data:
        # A queue of two, so that the checks can fill it.
        serve = [binary, "serve", "--data", data, "--port", "0", "--queue", "2"]
        server = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True)
        try:
            address = next((line for line in server.stdout if "http://" in line), None)
            if address is None:
                sys.exit(f"the server printed no address: {server.wait()}")
            url = address[address.index("http://") :].strip()
            checked = subprocess.run([python, HERE / "checks.py", url], timeout=240)
        finally:
            server.terminate()
            server.wait(timeout=60)
    sys.exit(checked.returncode)


if __name__ == "__main__":
    main()
