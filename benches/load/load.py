"""How `diptych serve` stands up to load; see run.sh.

Clients ask one search after another without a pause, with texts out of 200,000; the service keeps no embeddings
of queries. "Three times" sends as many searches a second as three times what the clients got before, whether they
are answered or not. Latencies of what was answered and of what was refused are told apart.
"""

import argparse
import http.client
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../peers"))

from shared import processor, put_between_marks, refuse_if_busy, table

SETTLE_S = 300
WARM_S = 10
PORT = 7821
# Rows of segments stand still for so long when all are built, which may take so long.
STILL_S, BUILT_S = 30, 600
SEED = 7
WORDS = ("red green blue small big old young bright dark happy sad angry quiet loud wooden paper cat dog house tree "
         "car bird face hand flower boat train bridge river mountain cloud star moon sun rain snow apple bread cup "
         "book pen key door chair clock lamp shoe hat coat ring bell drum flag kite ball").split()
# Connections that three times the load may be spread over.
MANY = 1000
# Growth of the service's own memory that counts as flat: from the end of the first phase to the end of the second, and
# from when the segments of added items are built to the end of the last. Pages of mapped segment files are shown beside
# it: they become resident as searches first touch them, and the kernel takes them back where it needs room.
FLAT = 1.15


def arguments():
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--seconds", type=int, default=60, help="of each phase")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--json", metavar="FILE", help="write all figures there, too")
    parser.add_argument("--markdown", metavar="FILE", help="put the table into this document")
    parser.add_argument("--busy-ok", action="store_true", help="measure on a busy machine")
    parser.add_argument("--binary", help=argparse.SUPPRESS)
    parser.add_argument("--oha", help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name in ["items", "seconds", "clients"]:
        if getattr(options, name) < 1:
            parser.error(f"--{name} is {getattr(options, name)}, expected at least 1")
    return options


def call(method, path, body=None, kind="application/json"):
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=600)
    headers = {"content-type": kind} if body is not None else {}
    connection.request(method, path, body, headers, encode_chunked=kind.endswith("ndjson"))
    reply = connection.getresponse()
    contents = reply.read()
    if reply.status >= 300:
        sys.exit(f"{method} {path} answered {reply.status}: {contents[:300]}")
    return contents


def texts(draw, count):
    return [" ".join(draw.choices(WORDS, k=draw.randint(2, 6))) for _ in range(count)]


def ingest(prefix, count, draw, stop=lambda: False):
    """Adds items over one stream; how many were kept."""
    def lines():
        for at in range(0, count, 100):
            if stop():
                return
            batch = texts(draw, min(100, count - at))
            rows = ({"id": f"{prefix}{at + i}", "text": f"{text} {at + i}"} for i, text in enumerate(batch))
            yield "".join(json.dumps(row) + "\n" for row in rows).encode()

    results = call("POST", "/v1/collections/bench/items", lines(), "application/x-ndjson")
    failed = [line for line in results.splitlines() if b'"error"' in line]
    if failed:
        sys.exit(f"{len(failed)} items were refused, the first with {failed[0][:300]}")
    return results.count(b"\n")


def wait_until_built():
    """Until the number of rows in segments has stood still for a while."""
    built, since, deadline = None, time.monotonic(), time.monotonic() + BUILT_S
    while time.monotonic() < min(deadline, since + STILL_S):
        lines = call("GET", "/metrics").decode().splitlines()
        now = [line for line in lines if line.startswith("diptych_rows{") and '"sealed"' in line]
        if now != built:
            built, since = now, time.monotonic()
        time.sleep(1)


def memory(process):
    """What is resident in MiB: of its own, and of mapped files."""
    with open(f"/proc/{process.pid}/status", encoding="utf-8") as file:
        fields = dict(line.split(":", 1) for line in file)
    own, mapped = (int(fields[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile"))
    return {"own_mib": own, "mapped_mib": mapped}


def attack(options, bodies, seconds, clients, rate=None):
    """What oha says of a phase."""
    command = [options.oha, "--no-tui", "--output-format", "json", "--stats-success-breakdown", "-z", f"{seconds}s",
               "-c", str(clients), "-m", "POST", "-H", "content-type: application/json", "-Z", bodies]
    if rate:
        command += ["-q", str(round(rate))]
    command.append(f"http://127.0.0.1:{PORT}/v1/collections/bench/search")
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def row(name, said, resident):
    """Figures of a phase. What has no status was cut off when the phase was over."""
    statuses = said["statusCodeDistribution"]
    answered = statuses.get("200", 0)
    refused = sum(n for status, n in statuses.items() if status in ("429", "503"))
    total = sum(statuses.values())
    good = said["latencyPercentilesSuccessful"]
    bad = said.get("latencyPercentilesNotSuccessful") or {}

    def ms(of, key):
        return None if of.get(key) is None else 1e3 * of[key]

    return {
        "phase": name, "per_s": answered / said["summary"]["total"], "p50_ms": ms(good, "p50"),
        "p95_ms": ms(good, "p95"), "p99_ms": ms(good, "p99"), "refused": refused,
        "refused_p99_ms": ms(bad, "p99"), "errors": total - answered - refused, "asked": total,
        "cut_off": sum(said["errorDistribution"].values()), **resident,
    }


def measure(options, folder):
    """A row for each phase."""
    draw = random.Random(SEED)
    log = open(f"{folder}/log", "w", encoding="utf-8")
    command = [options.binary, "serve", "--data", f"{folder}/data", "--port", str(PORT)]
    process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                call("GET", "/healthz")
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"the service does not start; see {folder}/log")
                time.sleep(0.1)
        call("PUT", "/v1/collections/bench", b"{}")
        started = time.perf_counter()
        kept = ingest("a", options.items, draw)
        print(f"{kept} items in {time.perf_counter() - started:.0f} s", flush=True)
        wait_until_built()

        by_text, by_embedding = f"{folder}/texts", f"{folder}/embeddings"
        asked = texts(draw, 200_000)
        with open(by_text, "w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": f"{text} {i}", "k": 10}) + "\n" for i, text in enumerate(asked))
        body = json.dumps({"input": asked[:1000]}).encode()
        rows = json.loads(call("POST", "/v1/embeddings", body))["data"]
        with open(by_embedding, "w", encoding="utf-8") as file:
            # Texts find texts here, as there are no pictures.
            file.writelines(json.dumps({"embedding": r["embedding"], "target": "text", "k": 10}) + "\n" for r in rows)

        # Towers take their workspaces for batches and the store its cache once, at the first use.
        attack(options, by_text, WARM_S, 4 * options.clients)
        found = []

        def phase(name, *args):
            said = attack(options, *args)
            found.append(row(name, said, memory(process)))
            print(found[-1], flush=True)
            return found[-1]

        phase("by embedding", by_embedding, options.seconds, options.clients)
        alone = phase("by text", by_text, options.seconds, options.clients)
        over = threading.Event()
        adding = threading.Thread(target=ingest, args=("b", 10_000_000, draw, over.is_set))
        adding.start()
        phase("by text, while items are added", by_text, options.seconds, options.clients)
        over.set()
        adding.join()
        # Segments of what was added are built first, and take their room: the rest is about searches alone.
        wait_until_built()
        found[-1].update(memory(process))
        capacity = phase(f"by text, {4 * options.clients} clients", by_text, options.seconds, 4 * options.clients)
        three = 3 * capacity["per_s"]
        phase("three times as much", by_text, options.seconds, MANY, three)
        phase("by text, afterwards", by_text, 10, options.clients)
        process.terminate()
        process.wait(60)
        log.flush()
        with open(f"{folder}/log", encoding="utf-8") as file:
            if "panicked" in (said := file.read()):
                sys.exit(f"the service panicked:\n{said}")
        return found, alone
    finally:
        process.kill()


def main():
    options = arguments()
    load = refuse_if_busy(options, SETTLE_S)
    if options.check:
        return
    with tempfile.TemporaryDirectory() as folder:
        found, _ = measure(options, folder)

    def number(value, form="{:.1f}"):
        return "" if value is None else form.format(value)

    header = ["", "answered/s", "p50 ms", "p95", "p99", "refused", "p99 of refusals", "errors", "own MiB", "mapped"]
    lines = table(header, [[
        r["phase"], number(r["per_s"], "{:.0f}"), number(r["p50_ms"]), number(r["p95_ms"]), number(r["p99_ms"]),
        f"{r['refused'] / r['asked']:.1%}", number(r["refused_p99_ms"]), str(r["errors"]), number(r["own_mib"], "{:.0f}"),
        number(r["mapped_mib"], "{:.0f}"),
    ] for r in found])
    by = {r["phase"]: r for r in found}
    capacity, three, after = found[3], found[4], found[5]
    claims = [
        ("no errors", all(r["errors"] == 0 for r in found)),
        ("nothing is refused below capacity", all(r["refused"] == 0 for r in found[:4])),
        ("its own memory is flat while nothing is added",
         all(found[end]["own_mib"] <= FLAT * found[begin]["own_mib"] for begin, end in [(0, 1), (2, 5)])),
        ("at three times the load p99 of what is answered at most doubles", three["p99_ms"] <= 2 * capacity["p99_ms"]),
        ("and it recovers", after["p99_ms"] <= 1.5 * by["by text"]["p99_ms"]),
    ]
    about = (f"{options.items:,} texts of the built-in model, k = 10, {options.clients} clients where nothing else is "
             f"said, {options.seconds} s each; the load generator runs on the same {os.cpu_count()} cores. {processor()}, "
             f"load {load:.1f} before.")
    text = "\n".join([about, "", *lines, "", *(f"- {'holds' if ok else 'MISSED'}: {what}" for what, ok in claims), ""])
    print(text)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"rows": found, "load_before": load, "processor": processor()}, file, indent=1)
    if options.markdown:
        put_between_marks(options.markdown, "load", text)
    sys.exit(0 if all(ok for _, ok in claims) else 1)


if __name__ == "__main__":
    main()
