#!/usr/bin/env python3
"""What transformers makes of tiny random BERTs with a pooling, and a check of exported folders.

    pip install -r requirements.txt
    python sentence.py make                   # writes data/sentence_*, seeded
    python sentence.py check-export DIR ROWS  # ROWS: what encoders/examples/sentences.rs made of DIR

What sentence-transformers does behind the transformer (Pooling, Dense, Normalize) is written out here,
so that the library is not needed.
"""

import argparse
import json
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertModel

import tokenizer
from make_reference import SEED, TEXTS, randomize

DATA = pathlib.Path(__file__).parent / "data"

CASES = {
    # As all-MiniLM-L6-v2: the mean of tokens, as wide as the model.
    "sentence_mean": {
        "config": {
            "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3,
            "num_attention_heads": 3, "max_position_embeddings": 20, "hidden_act": "gelu",
        },
        "max_seq_length": 16, "pooling": "pooling_mode_mean_tokens", "dense": None,
    },
    # [CLS], and a map to another width.
    "sentence_first_dense": {
        "config": {
            "hidden_size": 20, "intermediate_size": 36, "num_hidden_layers": 2,
            "num_attention_heads": 4, "max_position_embeddings": 12, "hidden_act": "gelu_new",
            "layer_norm_eps": 1e-5, "type_vocab_size": 1,
        },
        "max_seq_length": 12, "pooling": "pooling_mode_cls_token", "dense": {"out": 28, "bias": True},
    },
}


@torch.no_grad()
def encode(folder, texts, dtype=torch.float32):
    """Ids, unit rows, and per text the attention maps of all layers [layers, heads, t, t]."""
    read = lambda *names: json.loads(folder.joinpath(*names).read_text())
    model = BertModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    model = model.eval().to(dtype)
    tok = AutoTokenizer.from_pretrained(folder)
    length = read("sentence_bert_config.json")["max_seq_length"]
    mean = read("1_Pooling", "config.json")["pooling_mode_mean_tokens"]
    tokens, rows, maps = [], [], []
    for text in texts:
        ids = tok(text, truncation=True, max_length=length)["input_ids"]
        out = model(input_ids=torch.tensor([ids]), output_attentions=True)
        hidden = out.last_hidden_state[0]
        row = hidden.mean(0) if mean else hidden[0]
        if (folder / "2_Dense").is_dir():
            dense = {k: v.to(dtype) for k, v in load_file(folder / "2_Dense/model.safetensors").items()}
            row = dense["linear.weight"] @ row + dense.get("linear.bias", 0)
        tokens.append(ids)
        rows.append(row / row.norm())
        maps.append(torch.stack([layer[0] for layer in out.attentions]))
    return tokens, torch.stack(rows), maps


def make():
    for number, (name, case) in enumerate(CASES.items()):
        folder = DATA / name
        (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
        tok = tokenizer.wordpiece()
        config = BertConfig(vocab_size=len(tok), pad_token_id=tok.pad_token_id, **case["config"])
        model = BertModel(config, add_pooling_layer=True).eval()
        randomize(model, SEED + 100 + number)
        model.save_pretrained(folder)
        tok.backend_tokenizer.save(str(folder / "tokenizer.json"))
        write = lambda value, *names: folder.joinpath(*names).write_text(json.dumps(value, indent=1) + "\n")
        write({"tokenizer_class": "BertTokenizer"}, "tokenizer_config.json")
        modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
        width = case["config"]["hidden_size"]
        pooling = {f"pooling_mode_{mode}": f"pooling_mode_{mode}" == case["pooling"] for mode in modes}
        write({"word_embedding_dimension": width, **pooling}, "1_Pooling", "config.json")
        write({"max_seq_length": case["max_seq_length"], "do_lower_case": False},
              "sentence_bert_config.json")
        kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
        if case["dense"]:
            kinds[2:] = [("Dense", "2_Dense"), ("Normalize", "3_Normalize")]
            out, generator = case["dense"]["out"], torch.Generator().manual_seed(SEED)
            (folder / "2_Dense").mkdir(exist_ok=True)
            write({"in_features": width, "out_features": out, "bias": True,
                   "activation_function": "torch.nn.modules.linear.Identity"}, "2_Dense", "config.json")
            save_file({"linear.weight": torch.randn(out, width, generator=generator),
                       "linear.bias": torch.randn(out, generator=generator)},
                      folder / "2_Dense/model.safetensors")
        write([{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
               for i, (kind, path) in enumerate(kinds)], "modules.json")

        # From the files, as a user would.
        tokens, rows, maps = encode(folder, TEXTS)
        _, exact, _ = encode(folder, TEXTS, torch.float64)
        print(name, "f32 to f64: max-abs", float(abs(rows - exact).max()),
              "mean cosine between different inputs", float((rows @ rows.T).mean()))
        tensors = {f"maps/{i}": text.contiguous() for i, text in enumerate(maps)}
        save_file({"rows": rows.contiguous(), **tensors}, folder / "expected.safetensors")
        listing = {"texts": [{"text": t, "ids": ids} for t, ids in zip(TEXTS, tokens)]}
        (folder / "expected.json").write_text(json.dumps(listing, indent=1) + "\n")


def check_export(folder, rows):
    """The least cosine of rows to what transformers makes of the same folder and texts."""
    items = json.loads(rows.read_text())
    _, expected, _ = encode(folder, [item["text"] for item in items])
    ours = np.array([item["row"] for item in items], np.float32)
    least = float((ours * expected.numpy()).sum(1).min())
    print(f"{len(items)} texts, least cosine {least:.7f}")
    if not items or not least > 0.99999:
        sys.exit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("make")
    check = commands.add_parser("check-export")
    check.add_argument("folder", type=pathlib.Path)
    check.add_argument("rows", type=pathlib.Path)
    arguments = parser.parse_args()
    if arguments.command == "make":
        make()
    else:
        check_export(arguments.folder, arguments.rows)
