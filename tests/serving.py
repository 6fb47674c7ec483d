"""What the tests with clients from outside share: an environment for them, and a server to ask."""

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path


def environment(wanted):
    """The folder of programs of a virtual environment with exactly what the file `wanted` names."""
    name = hashlib.sha256(wanted.read_bytes() + sys.version.encode()).hexdigest()[:16]
    cache = Path(os.environ.get("DIPTYCH_CI_CACHE") or Path.home() / ".cache" / "diptych-ci")
    folder = cache / f"{wanted.parent.name}-{name}"
    if not (folder / "complete").exists():
        venv.create(folder, with_pip=True, clear=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([folder / "bin" / "python", *install, "-r", wanted], check=True)
        (folder / "complete").touch()
    return folder / "bin"


def binary():
    """The binary that the command line names."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        sys.exit(f"usage: {sys.argv[0]} PATH/TO/diptych, a binary that was built before")
    return Path(sys.argv[1]).resolve()


@contextlib.contextmanager
def serving(binary, *options, **how):
    """The address of a server on a free port, with a data folder that lasts as long as it does."""
    with tempfile.TemporaryDirectory() as data:
        serve = [binary, "serve", "--data", data, "--port", "0", *options]
        server = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True, **how)
        try:
            address = next((line for line in server.stdout if "http://" in line), None)
            if address is None:
                sys.exit(f"the server printed no address: {server.wait()}")
            yield address[address.index("http://") :].strip()
            if server.poll() is not None:
                sys.exit(f"the server ended by itself: {server.returncode}")
        finally:
            server.terminate()
            server.wait(timeout=60)
