#!/usr/bin/env python3
"""The description of the server, tried by schemathesis: what it sends is made from the description,
and not only what is allowed; what comes back must be described.

    tests/schemathesis/run.py target/debug/diptych

Makes a virtual environment of its own (in DIPTYCH_CI_CACHE or ~/.cache/diptych-ci), and starts the
binary on a free port of the loopback address. The seed is fixed.
"""

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import serving

CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "unsupported_method",
    "allow_header_conformance",
]
SECONDS = 100
EXAMPLES = 25


def call(method, url, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def fill(url, description):
    """What the examples ask for: a collection `demo` with a picture, `mine` with a snapshot, a head and a job."""
    add = description["paths"]["/v1/collections/{collection}/items"]["post"]["requestBody"]
    examples = add["content"]["application/json"]["examples"]
    demo, mine = f"{url}/v1/collections/demo", f"{url}/v1/collections/mine"
    for collection in (demo, mine):
        call("PUT", collection, {"fields": {"by": "keyword", "size": "integer", "added": "datetime"}})
        for example in examples.values():
            call("POST", f"{collection}/items", example["value"])
    picture = next(item["image"] for item in examples["many"]["value"] if "image" in item)
    call("POST", f"{demo}/items", {"id": "1f34e", "image": picture, "payload": {"name": "red apple"}})
    call("POST", f"{mine}/snapshots", {"name": "monday"})
    call("PUT", f"{mine}/heads/kinds", {"labels": ["a cat", "a dog"]})
    call("POST", f"{mine}/heads/kinds/apply", {"field": "kind"})


def close(description):
    """The same, but answers may have no field that is not described: the description leaves that open
    for later versions."""
    schemas = description["components"]["schemas"]
    seen = set()

    def visit(value, part=False):
        """A part of a whole does not know what the other parts say."""
        if isinstance(value, list):
            for one in value:
                visit(one, part)
        elif isinstance(value, dict):
            to = value.get("$ref", "").rpartition("/")[2]
            if to in schemas and to not in seen:
                seen.add(to)
                visit(schemas[to])
            if value.get("type") == "object" and "properties" in value and not part:
                value.setdefault("additionalProperties", False)
            for name, one in value.items():
                visit(one, name == "allOf")

    for methods in description["paths"].values():
        for operation in methods.values():
            visit(operation["responses"])
    return description


def main():
    binary = serving.binary()
    programs = serving.environment(HERE / "requirements.txt")
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "log", "w+") as log:
        with serving.serving(binary, stderr=log) as url:
            description = call("GET", f"{url}/openapi.json")
            fill(url, description)
            closed = Path(folder) / "openapi.json"
            closed.write_text(json.dumps(close(description)))
            tried = subprocess.run(
                [
                    *(programs / "schemathesis", "--config-file", HERE / "schemathesis.toml"),
                    *("run", closed, "--url", url, "--checks", ",".join(CHECKS)),
                    *("--seed", "1", "--workers", "1", "--max-examples", str(EXAMPLES)),
                    *("--max-time", str(SECONDS), "--continue-on-failure"),
                ],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(HERE)},
                timeout=SECONDS + 200,
            )
        log.seek(0)
        panics = [line for line in log if "panic" in line]
        sys.stdout.writelines(panics)
    sys.exit(tried.returncode or bool(panics))


if __name__ == "__main__":
    main()
