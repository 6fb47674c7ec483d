"""Our service and one of transformers, FastAPI and hnswlib, over HTTP; see run.sh.

Each gets all pictures from one client, 32 in a request and one request after another, while the other is
idle. Then rounds of text searches from one client and from eight, the services in turns; a figure is the
median of the rounds. The memory is the peak of the process and of all that it started.
"""

import argparse
import atexit
import concurrent.futures
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(here))

from shared import processor, put_between_marks, refuse_if_busy, table

SETTLE_S = 300
SEED = 7
BATCH = 32
K = 10
# Searches of a round by each number of clients, and clients.
QUERIES = 150
CLIENTS = [1, 8]
WORDS = "red green small big old bright cat dog house tree car bird face hand flower boat".split()


def arguments():
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", metavar="FOLDER")
    parser.add_argument("--model", metavar="FOLDER")
    parser.add_argument("--precision", type=lambda text: text.split(","), default=["auto", "f32"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", metavar="FILE", help="write all figures there, too")
    parser.add_argument("--markdown", metavar="FILE", help="put the table into this document")
    parser.add_argument("--busy-ok", action="store_true", help="measure on a busy machine")
    parser.add_argument("--binary", help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}, expected at least 1")
    for way in options.precision:
        if way not in ("auto", "f32", "int16", "bf16", "int8"):
            parser.error(f"--precision names {way}, expected auto, f32, int16, bf16 or int8")
    return options


class Service:
    """A running service."""

    def __init__(self, name, command, port, environment=None, **options):
        self.name, self.port = name, port
        self.process = subprocess.Popen(
            command, env={**os.environ, **(environment or {})}, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, **options)
        atexit.register(self.process.kill)
        deadline = time.monotonic() + 120
        while True:
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{name} does not start: {' '.join(command)}")
            try:
                self.call("GET", "/healthz")
                return
            except OSError:
                time.sleep(0.2)

    def connection(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)

    def call(self, method, path, body=None, kind="application/json", connection=None):
        connection = connection or self.connection()
        connection.request(method, path, body, {"content-type": kind} if body else {})
        reply = connection.getresponse()
        contents = reply.read()
        if reply.status >= 300:
            sys.exit(f"{self.name}: {method} {path} answered {reply.status}: {contents[:300]}")
        return json.loads(contents or b"null")

    def ids(self, reply):
        return [hit["id"] for hit in reply["hits"]]

    def mib(self):
        """Peak of resident memory."""
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as file:
            peak = next(line for line in file if line.startswith("VmHWM"))
        return int(peak.split()[1]) / 1024

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


class Ours(Service):
    def __init__(self, options, precision, folder, port):
        super().__init__(
            f"diptych, {precision}",
            [options.binary, "serve", "--data", f"{folder}/{precision}", "--model", options.model,
             "--precision", precision, "--port", str(port)], port)
        self.call("PUT", "/v1/collections/bench", b"{}")
        self.items, self.search = "/v1/collections/bench/items", "/v1/collections/bench/search"
        self.field = "file"

    def keep(self):
        """What is answered is durable already."""


class Theirs(Service):
    def __init__(self, options, folder, port):
        super().__init__(
            "transformers, FastAPI, hnswlib",
            [sys.executable, "-m", "uvicorn", "service:app", "--port", str(port), "--log-level", "error"],
            port, {"MODEL": options.model, "HF_HUB_OFFLINE": "1"}, cwd=here)
        self.items, self.search, self.field = "/items", "/search", "files"
        self.file = f"{folder}/index.bin"

    def keep(self):
        self.call("POST", "/save", json.dumps({"file": self.file}))


def multipart(field, files):
    boundary = b"diptych-bench"
    body = b""
    for name, contents in files:
        if field == "file":
            body += (b"--" + boundary + b'\r\ncontent-disposition: form-data; name="id"\r\n\r\n'
                     + name.encode() + b"\r\n")
        body += (b"--" + boundary + b'\r\ncontent-disposition: form-data; name="' + field.encode()
                 + b'"; filename="' + name.encode() + b'"\r\ncontent-type: image/png\r\n\r\n'
                 + contents + b"\r\n")
    return body + b"--" + boundary + b"--\r\n", "multipart/form-data; boundary=diptych-bench"


def ingest(service, pictures):
    """Pictures per second until all are kept."""
    connection = service.connection()
    started = time.perf_counter()
    for at in range(0, len(pictures), BATCH):
        body, kind = multipart(service.field, pictures[at:at + BATCH])
        service.call("POST", service.items, body, kind, connection)
    service.keep()
    return len(pictures) / (time.perf_counter() - started)


def ask(service, clients, round_):
    """Searches per second of so many clients, and the median milliseconds of one. No text is asked twice."""
    draw = random.Random(f"{SEED} {round_} {clients}")
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(2, 8))) for _ in range(QUERIES)]

    def client(number):
        connection, taken = service.connection(), []
        for text in texts[number::clients]:
            started = time.perf_counter()
            body = json.dumps({"text": text, "k": K})
            reply = service.call("POST", service.search, body, connection=connection)
            taken.append(1e3 * (time.perf_counter() - started))
            if len(service.ids(reply)) != K:
                sys.exit(f"{service.name}: {len(service.ids(reply))} hits, expected {K}")
        return taken

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        started = time.perf_counter()
        taken = sum(pool.map(client, range(clients)), [])
        seconds = time.perf_counter() - started
    return len(texts) / seconds, statistics.median(taken)


def gallery(options, folder):
    """The pictures of the demo, which lays them out at its first start."""
    if options.pictures:
        return options.pictures
    command = [options.binary, "--data", f"{folder}/demo", "demo", "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    next((line for line in server.stdout if "http://" in line), None)
    server.terminate()
    server.wait()
    return f"{folder}/demo/gallery"


def checkpoint(options, folder):
    if options.model:
        return options.model
    sys.path.insert(0, os.path.join(os.path.dirname(here), "encoders"))
    import models

    models.write("clip", models.checkpoint("clip"), f"{folder}/clip")
    return f"{folder}/clip"


def main():
    options = arguments()
    load = refuse_if_busy(options, SETTLE_S)
    if options.check:
        return
    with tempfile.TemporaryDirectory() as folder:
        options.model = os.path.abspath(checkpoint(options, folder))
        pictures = gallery(options, folder)
        names = sorted(name for name in os.listdir(pictures) if name.endswith((".png", ".jpg", ".jpeg")))
        files = []
        for name in names:
            with open(f"{pictures}/{name}", "rb") as file:
                files.append((name, file.read()))
        services = [Theirs(options, folder, 7811)]
        services += [Ours(options, way, folder, 7812 + i) for i, way in enumerate(options.precision)]
        rows = [{"name": service.name} for service in services]
        for service, row in zip(services, rows):
            row["pictures_per_s"] = ingest(service, files)
        for clients in CLIENTS:
            found = [[] for _ in services]
            for round_ in range(-1, options.rounds):
                order = random.Random(f"{SEED} {round_}").sample(range(len(services)), len(services))
                for which in order:
                    figures = ask(services[which], clients, round_)
                    # The first round warms up.
                    if round_ >= 0:
                        found[which].append(figures)
            for row, figures in zip(rows, found):
                row[f"searches_per_s_{clients}"] = statistics.median(f[0] for f in figures)
                row[f"search_ms_{clients}"] = statistics.median(f[1] for f in figures)
        agree = same_hits(services)
        for service, row in zip(services, rows):
            row["mib"] = service.mib()
            service.stop()
    base = rows[0]
    header = ["", "pictures/s", "searches/s, 1 client", f"{CLIENTS[-1]} clients", "one search, ms", "MiB"]

    def cell(row, key, form):
        ratio = row[key] / base[key]
        return form.format(row[key]) + ("" if row is base else f" ({ratio:.2f})")

    lines = table(header, [[
        row["name"], cell(row, "pictures_per_s", "{:.1f}"), cell(row, "searches_per_s_1", "{:.0f}"),
        cell(row, f"searches_per_s_{CLIENTS[-1]}", "{:.0f}"), cell(row, "search_ms_1", "{:.1f}"),
        cell(row, "mib", "{:.0f}")] for row in rows])
    about = (f"{len(files)} pictures, {BATCH} in a request; {options.rounds} rounds of {QUERIES} searches with k "
             f"{K}, no text twice; in brackets the ratio to the first row. {agree} {processor()}, "
             f"{os.cpu_count()} cores, load {load:.1f} before.")
    text = "\n".join([about, "", *lines, ""])
    print(text)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"pictures": len(files), "rounds": options.rounds, "rows": rows, "load_before": load,
                       "processor": processor(), "about": agree}, file, indent=1)
    if options.markdown:
        put_between_marks(options.markdown, "service", text)


def same_hits(services):
    """How many of the first hits of each of ours are those of the peer: the same work was done."""
    texts = [f"{a} {b}" for a in WORDS[:6] for b in WORDS[6:]]
    hits = []
    for service in services:
        bodies = [json.dumps({"text": text, "k": K}) for text in texts]
        hits.append([service.ids(service.call("POST", service.search, body)) for body in bodies])
    shares = []
    for of in hits[1:]:
        common = sum(len(set(a) & set(b)) for a, b in zip(of, hits[0]))
        shares.append(common / (K * len(texts)))
    return ("Hits that are the peer's, too: "
            + ", ".join(f"{service.name} {share:.3f}" for service, share in zip(services[1:], shares)) + ".")


if __name__ == "__main__":
    main()
