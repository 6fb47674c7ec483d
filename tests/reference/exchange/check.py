#!/usr/bin/env python3
"""Reads exports of Diptych with pyarrow, pandas, numpy and DuckDB, and has it import what they write.

    python check.py check PROGRAM       # run.sh makes the environment
    python check.py fixtures            # writes exchange/tests/data, which CI reads

Every line that `check` prints is something that was compared; the first difference ends it.
"""

import json
import pathlib
import struct
import subprocess
import sys
import tempfile

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

DATA = pathlib.Path(__file__).resolve().parents[3] / "exchange" / "tests" / "data"
# Pictures that are indexed.
COUNT = 12


def rows(count, dim):
    """Unit rows that exchange/tests/foreign.rs computes in the same way."""
    i, j = np.mgrid[0:count, 0:dim]
    raw = ((i * 31 + j * 17) % 23 - 11).astype(np.float64)
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)


def save_clip(folder, count, dim, dtype, shards=2):
    """What clip-retrieval's writer does: np.save, and a data frame of pandas."""
    images, texts = rows(count, dim).astype(dtype), rows(2 * count, dim)[count:].astype(dtype)
    for shard, part in enumerate(np.array_split(np.arange(count), shards)):
        for kind, matrix in (("img_emb", images), ("text_emb", texts)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            np.save(folder / kind / f"{kind}_{shard}.npy", matrix[part])
        (folder / "metadata").mkdir(exist_ok=True)
        frame = pd.DataFrame({
            "image_path": [f"p/{i}.jpg" for i in part],
            "caption": [f"caption \u00e9 {i}" for i in part],
            "similarity": [i / 8 for i in part],
            "taken": pd.to_datetime([f"2024-05-0{i + 1}T12:30:00.25" for i in part]),
        })
        frame.to_parquet(folder / "metadata" / f"metadata_{shard}.parquet")


def table(count, dim, kind):
    """One table of items, in the types that different programs choose."""
    matrix = rows(count, dim)
    text = pa.large_utf8() if kind == "large" else pa.utf8()
    number = {"plain": pa.float32(), "large": pa.float64(), "half": pa.float16()}[kind]
    values = pa.array(matrix.astype(number.to_pandas_dtype()).ravel())
    if kind == "plain":
        shared = pa.FixedSizeListArray.from_arrays(values, dim)
    elif kind == "large":
        offsets = pa.array(np.arange(count + 1) * dim, pa.int64())
        shared = pa.LargeListArray.from_arrays(offsets, values)
    else:
        offsets = pa.array(np.arange(count + 1) * dim, pa.int32())
        shared = pa.ListArray.from_arrays(offsets, values)
    return pa.table({
        "id": pa.array([f"item \u00e9 {i}" for i in range(count)], text),
        "modality": pa.array(["image", "text"] * (count // 2) + ["image"] * (count % 2))
        .dictionary_encode(),
        "shared": shared,
        "payload": pa.array([json.dumps({"n": i}) for i in range(count)], text),
        "label": pa.array([None if i % 2 else f"l{i}" for i in range(count)], text),
        "sizes": pa.array([[i, i + 1] for i in range(count)]),
    })


KINDS = {
    "plain": {},
    "large": {"compression": "zstd", "write_page_checksum": True, "version": "2.6"},
    "half": {"data_page_version": "2.0", "use_dictionary": False},
}


def fixtures():
    DATA.mkdir(parents=True, exist_ok=True)
    for kind, how in KINDS.items():
        pq.write_table(table(5, 16, kind), DATA / f"{kind}.parquet", **how)
    save_clip(DATA / "clip", 5, 16, np.float16)
    for path in sorted(DATA.rglob("*.*")):
        print(path.relative_to(DATA), path.stat().st_size)


def bmp(path, seed):
    side = 32
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    body = pixels.tobytes()
    head = struct.pack("<2sIHHI", b"BM", 54 + len(body), 0, 0, 54)
    path.write_bytes(head + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0) + body)


def same(what, got, expected):
    if isinstance(got, np.ndarray):
        good = got.shape == expected.shape and np.array_equal(got, expected)
    else:
        good = got == expected
    if not good:
        sys.exit(f"{what}: got {got!r}, expected {expected!r}")
    print(f"same: {what}")


def check(program):
    with tempfile.TemporaryDirectory() as folder:
        check_in(pathlib.Path(folder), program)
    print("all the same")


def check_in(folder, program):
    def run(*arguments):
        command = [program, *map(str, arguments), "--data", str(folder / "data"), "--json"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{arguments}: {done.stderr}")
        return json.loads(done.stdout)

    (folder / "pictures").mkdir()
    for i in range(COUNT):
        bmp(folder / "pictures" / f"{i:02}.bmp", i)
    run("index", folder / "pictures", "--collection", "all")
    print("exported:", run("export", "all", folder / "all.parquet"))

    # pyarrow: types as documented, numbers as they are.
    read = pq.read_table(folder / "all.parquet")
    about = json.loads(read.schema.metadata[b"diptych"])
    dim = about["spaces"]["shared_dim"]
    print("pyarrow sees:", ", ".join(f"{f.name}: {f.type}" for f in read.schema))
    same("type of shared", str(read.schema.field("shared").type.value_type), "float")
    same("size of shared", read.schema.field("shared").type.list_size, dim)
    same("type of modality", read.schema.field("modality").type, pa.dictionary(pa.int32(), pa.utf8()))
    same("rows", read.num_rows, COUNT)
    matrix = np.stack(read["shared"].to_numpy())
    norms = np.linalg.norm(matrix.astype(np.float64), axis=1)
    same("unit length", bool(np.all(np.abs(norms - 1) < 1e-5)), True)
    embedded = run("embed", "--image", *sorted((folder / "pictures").iterdir()))
    expected = np.array([item["shared"] for item in embedded["items"]], np.float32)
    same("embeddings of pyarrow and of `diptych embed`", bool(np.abs(matrix - expected).max() < 1e-6), True)

    # pandas.
    frame = pd.read_parquet(folder / "all.parquet")
    same("pandas: modality", list(frame.modality.unique()), ["image"])
    same("pandas: matrix", np.stack(frame.shared.to_numpy()), matrix)
    names = [json.loads(payload)["name"] for payload in frame.payload]
    same("pandas: payloads", names, [f"{i:02}.bmp" for i in range(COUNT)])
    same("pandas: hashes", {len(h) for h in frame.content_hash}, {32})

    # DuckDB.
    query = "select count(*), min(len(shared)), max(json_extract_string(payload, '$.name')) from read_parquet(?)"
    got = duckdb.execute(query, [str(folder / "all.parquet")]).fetchone()
    same("DuckDB: count, dim, payload", got, (COUNT, dim, f"{COUNT - 1:02}.bmp"))

    # Back, from a file that pyarrow has written, which keeps the metadata.
    pq.write_table(read, folder / "again.parquet", compression="zstd")
    print("imported:", run("import", folder / "again.parquet", "again"))
    run("export", "again", folder / "second.parquet")
    same("all columns after pyarrow", pq.read_table(folder / "second.parquet").equals(read), True)

    # From pandas, which loses it, with a new column.
    frame["label"] = [f"l{i}" for i in range(COUNT)]
    frame.attrs = {}
    frame.to_parquet(folder / "pandas.parquet")
    print("imported:", run("import", folder / "pandas.parquet", "pandas", "--as-model"))
    found = run("search", "--collection", "pandas", "--image", folder / "pictures" / "03.bmp", "-k", "1")
    same("label of the hit", found["hits"][0]["payload"]["label"], "l3")

    # In the types of different programs.
    for kind, how in KINDS.items():
        items = table(8, dim, kind)
        pq.write_table(items, folder / f"{kind}.parquet", **how)
        run("import", folder / f"{kind}.parquet", kind, "--as-model")
        run("export", kind, folder / f"{kind}-back.parquet")
        back = np.stack(pq.read_table(folder / f"{kind}-back.parquet")["shared"].to_numpy())
        sent = np.stack(items["shared"].to_numpy(zero_copy_only=False)).astype(np.float32)
        same(f"numbers of {kind}", back, sent)

    # clip-retrieval, both ways.
    for dtype in (np.float16, np.float32):
        name = f"clip-{np.dtype(dtype).name}"
        save_clip(folder / name, 8, dim, dtype)
        print("imported:", run("import", folder / name, name, "--as-model"))
        more = ["--f16"] if dtype == np.float16 else []
        run("export", name, folder / f"{name}-back", *more)
        for part, kind, begin in (("", "img_emb", 0), ("texts/", "text_emb", 8)):
            back = np.load(folder / f"{name}-back" / f"{part}{kind}" / f"{kind}_0.npy")
            same(f"{name}: {kind}", back, rows(16, dim)[begin:begin + 8].astype(dtype))
            meta = pd.read_parquet(folder / f"{name}-back" / f"{part}metadata" / "metadata_0.parquet")
            same(f"{name}: rows of {part}metadata", len(meta), 8)
        same(f"{name}: captions", list(meta.caption), [f"caption \u00e9 {i}" for i in range(8)])
        payload = json.loads(meta.payload[0])
        same(f"{name}: time in a payload", payload["taken"], "2024-05-01T12:30:00.250000Z")


if __name__ == "__main__":
    if sys.argv[1:2] == ["fixtures"]:
        fixtures()
    else:
        check(sys.argv[2])
