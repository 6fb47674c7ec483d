#!/usr/bin/env python3
"""A server that is treated badly: by thousands of connections, by slow clients, by broken pictures, by a full
disk, by kills.

    tests/faults/run.py target/debug/diptych

Each part says what it saw, and fails where something that was acknowledged is lost, somebody else is kept
waiting, an answer is a fault of the server's, or a thread panicked. Minutes; not a part of .ci/run, whose
tests have all of these in small. Needs nothing but Python 3.11; the full disk needs root.
"""

import base64
import contextlib
import http.client
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import serving

SEED = 7
# Idle connections, and the longest that a search may take beside them.
CROWD, PATIENCE_S = 10_000, 5
SLOW, SLOW_S = 200, 20
BROKEN = 600
# Far above what any takes: disks of busy machines pause.
PICTURE_S = 30
KILLS = 12
DISK_MIB = 48
PICTURES = HERE.parent / "reference" / "data" / "pictures"
SUFFIXES = {".png", ".jpg", ".webp", ".gif", ".bmp", ".tiff"}


class Server:
    """A server with its log and its data in a folder."""

    def __init__(self, binary, folder, *options):
        self.log_path = Path(folder) / "log"
        self.log = open(self.log_path, "a", encoding="utf-8")
        command = [binary, "serve", "--data", Path(folder) / "data", "--port", "0", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        address = next((line for line in self.process.stdout if "http://" in line), None)
        if address is None:
            sys.exit(f"the server printed no address: {self.log_path.read_text()}")
        self.host = address[address.index("http://") + 7 :].strip().rstrip("/")
        self.port = int(self.host.rpartition(":")[2])

    def ask(self, method, path, body=None, kind="application/json", patience=120):
        """Status and JSON of an answer."""
        connection = http.client.HTTPConnection(self.host, timeout=patience)
        with contextlib.closing(connection):
            if not isinstance(body, (bytes, type(None))):
                body = json.dumps(body).encode()
            connection.request(method, path, body, {"content-type": kind} if body is not None else {})
            reply = connection.getresponse()
            contents = reply.read()
        with contextlib.suppress(ValueError):
            return reply.status, json.loads(contents)
        return reply.status, contents

    def count(self):
        return self.ask("GET", "/v1/collections/c")[1]["stats"]["items"]

    def mib(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024

    def search(self):
        """Seconds that a search takes, which must find something."""
        started = time.monotonic()
        status, found = self.ask("POST", "/v1/collections/c/search", {"text": "a red bicycle"}, patience=60)
        expect(status == 200 and found["hits"], f"a search was answered with {status}: {found}")
        return time.monotonic() - started

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        ended = self.process.wait(timeout=60)
        self.log.close()
        panics = [line for line in self.log_path.read_text(encoding="utf-8").splitlines() if "panicked" in line]
        expect(not panics, f"it panicked: {panics[:3]}")
        expect(how == signal.SIGKILL or ended == 0, f"it ended with {ended}")


def expect(holds, otherwise):
    if not holds:
        sys.exit(f"FAILED: {otherwise}")


@contextlib.contextmanager
def server(binary, *options):
    """A server with a collection `c` of two texts; it must be well in the end."""
    with tempfile.TemporaryDirectory() as folder:
        one = Server(binary, folder, *options)
        try:
            one.ask("PUT", "/v1/collections/c", {})
            texts = [{"id": "a", "text": "a red bicycle"}, {"id": "b", "text": "a blue boat"}]
            expect(one.ask("POST", "/v1/collections/c/items", texts)[0] == 200, "no texts can be added")
            yield one
            one.search()
            one.stop()
        finally:
            one.process.kill()


def crowd(binary):
    """Connections that say nothing, as many as the limit allows, and more than there may be."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    number = min(CROWD, most - 200)
    with server(binary) as one:
        before = one.mib()
        taken = []
        with contextlib.ExitStack() as open_ones:
            for i in range(number):
                # A source port is used once only for an address: so many need several of these.
                near = (f"127.0.0.{2 + i // 20_000}", 0)
                open_ones.enter_context(
                    socket.create_connection(("127.0.0.1", one.port), timeout=60, source_address=near))
                if i % 1000 == 999:
                    taken.append(one.search())
            grown = one.mib() - before
        after = one.search()
        expect(max([*taken, after]) < PATIENCE_S, f"a search took {max(taken):.1f} s beside the crowd")
        return (f"{number} idle connections: searches beside them took at most {max(taken):.2f} s, "
                f"{grown:.0f} MiB of memory more")


def slow(binary):
    """Clients that send a byte a second, in heads and in bodies."""
    with server(binary) as one:
        over = time.monotonic() + SLOW_S
        cut = []

        def dribble(number):
            head = b"POST /v1/collections/c/search HTTP/1.1\r\nhost: x\r\n"
            if number % 2:
                head += b"content-type: application/json\r\ncontent-length: 9999\r\n\r\n"
            with socket.create_connection(("127.0.0.1", one.port), timeout=60) as client:
                if number % 2:
                    client.sendall(head)
                client.settimeout(1)
                while time.monotonic() < over:
                    try:
                        client.sendall(b" " if number % 2 else b"x")
                        if client.recv(1) is not None:
                            cut.append(number % 2)
                            return
                    except TimeoutError:
                        pass
                    except OSError:
                        cut.append(number % 2)
                        return

        clients = [threading.Thread(target=dribble, args=(i,)) for i in range(SLOW)]
        for client in clients:
            client.start()
        taken = []
        while time.monotonic() < over - 1:
            taken.append(one.search())
            time.sleep(0.2)
        for client in clients:
            client.join()
        heads = cut.count(0)
        expect(heads == SLOW // 2, f"{heads} of {SLOW // 2} slow heads were cut off")
        expect(max(taken) < PATIENCE_S, f"a search took {max(taken):.1f} s beside slow clients")
        return (f"{SLOW} clients of a byte a second: searches beside them took at most {max(taken):.2f} s; "
                f"all slow heads were cut off")


def broken(binary):
    """Pictures of every format that are cut, changed, joined, or something else."""
    draw = random.Random(SEED)
    files = sorted(path for path in PICTURES.iterdir() if path.suffix in SUFFIXES)
    whole = [path.read_bytes() for path in files]
    statuses = {}
    with server(binary) as one:
        before = one.mib()
        for i in range(BROKEN):
            picture = bytearray(draw.choice(whole))
            match i % 4:
                case 0:
                    del picture[draw.randrange(len(picture)) :]
                case 1:
                    for _ in range(draw.choice([1, 8, 64])):
                        picture[draw.randrange(len(picture))] = draw.randrange(256)
                case 2:
                    # Sizes and counts are near the beginning.
                    for _ in range(4):
                        picture[draw.randrange(min(64, len(picture)))] = draw.choice([0, 1, 127, 128, 255])
                case 3:
                    other = draw.choice(whole)
                    picture[draw.randrange(len(picture)) :] = other[draw.randrange(len(other)) :]
            item = {"id": f"p{i}", "image": base64.b64encode(picture).decode()}
            started = time.monotonic()
            status, said = one.ask("POST", "/v1/collections/c/items", item)
            expect(status in (200, 400, 413, 422), f"a broken picture was answered with {status}: {said}")
            took = time.monotonic() - started
            expect(took < PICTURE_S, f"a broken picture took {took:.1f} s")
            statuses[status] = statuses.get(status, 0) + 1
        expect(one.count() == 2 + statuses.get(200, 0), f"{one.count()} items, {statuses}")
        expect(len(statuses) > 1, f"all were answered alike: {statuses}")
        return f"{BROKEN} broken pictures of {len(files)} files: {statuses}, {one.mib() - before:.0f} MiB more"


def full(binary):
    """A disk that gets full while items are added, and has room again."""
    if os.geteuid() != 0:
        return "full disk: not tried, it needs root"
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "none", folder]
        if subprocess.run(mount, check=False).returncode:
            return "full disk: not tried, nothing can be mounted here"
        ballast, kept, refused = Path(folder) / "ballast", [], None
        try:
            one = Server(binary, folder)
            one.ask("PUT", "/v1/collections/c", {})
            free = os.statvfs(folder)
            ballast.write_bytes(bytes(max(0, free.f_bavail * free.f_bsize - (2 << 20))))
            for i in range(10_000):
                items = [{"id": f"{i}-{j}", "text": f"a red bicycle {i} {j}" * 20} for j in range(20)]
                status, said = one.ask("POST", "/v1/collections/c/items", items)
                if status != 200:
                    refused = (status, said)
                    break
                kept += [item["id"] for item in items]
            expect(refused is not None, "the disk did not get full")
            expect(refused[0] == 507, f"a full disk was answered with {refused}")
            expect(refused[1]["error"]["code"] == "storage_full", f"it does not say why: {refused[1]}")
            one.search()
            ballast.unlink()
            one.stop()
            again = Server(binary, folder)
            missing = [i for i in kept if again.ask("GET", f"/v1/collections/c/items/{i}")[0] != 200]
            expect(not missing, f"{len(missing)} of {len(kept)} acknowledged items are lost")
            more = again.ask("POST", "/v1/collections/c/items", {"id": "after", "text": "a kite"})
            expect(more[0] == 200, f"with room again an item was answered with {more}")
            again.stop()
            return (f"full disk: {refused[0]} says why, searches went on, all {len(kept)} acknowledged items are there "
                    "after a restart with room")
        finally:
            subprocess.run(["umount", "-l", folder], check=False)


def killed(binary):
    """SIGKILL while clients add, change and delete, over and over on the same data."""
    draw = random.Random(SEED)
    with tempfile.TemporaryDirectory() as folder:
        kept, lock = {}, threading.Lock()
        for life in range(KILLS):
            one = Server(binary, folder)
            if life == 0:
                one.ask("PUT", "/v1/collections/c", {})
            for name, text in kept.items():
                status, found = one.ask("GET", f"/v1/collections/c/items/{name}")
                right = status == 404 if text is None else status == 200 and found["text"] == text
                expect(right, f"after kill {life} item {name} is {status} {found}, expected {text!r}")

            def write(client):
                mine = random.Random(f"{SEED} {life} {client}")
                with contextlib.suppress(OSError, http.client.HTTPException):
                    for i in range(100_000):
                        # Each client has names of its own, so that it is known what was last.
                        name = f"{client}-{mine.randrange(40)}"
                        gone = mine.random() < 0.2
                        text = None if gone else f"{life} {i} of {client}"
                        path = f"/v1/collections/c/items/{name}"
                        with lock:
                            # Unknown from here on until it is acknowledged.
                            kept.pop(name, None)
                        if gone:
                            status, _ = one.ask("DELETE", path)
                        else:
                            status, _ = one.ask("POST", "/v1/collections/c/items", {"id": name, "text": text})
                        expect(status in (200, 204, 404), f"a write was answered with {status}")
                        with lock:
                            kept[name] = text

            clients = [threading.Thread(target=write, args=(i,), daemon=True) for i in range(8)]
            for client in clients:
                client.start()
            time.sleep(draw.uniform(0.3, 2.5))
            one.stop(signal.SIGKILL)
            for client in clients:
                client.join()
        return f"{KILLS} kills beside 8 writers: {len(kept)} names are as they were acknowledged"


def main():
    binary = serving.binary()
    parts = [crowd, slow, broken, full, killed]
    for part in parts:
        started = time.monotonic()
        print(f"{part(binary)} ({time.monotonic() - started:.0f} s)", flush=True)
    print("all held")


if __name__ == "__main__":
    main()
