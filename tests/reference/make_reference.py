#!/usr/bin/env python3
"""What transformers and OpenCLIP make of tiny random checkpoints, and a check of exported folders.

    pip install -r requirements.txt
    python make_reference.py make                       # writes data/, seeded
    python make_reference.py check-export DIR RESULT    # RESULT: diptych embed --json --model DIR

`make` is run when the cases change; its outputs are committed and read by
encoders/tests/parity.rs, so that the tests need no Python.
"""

import argparse
import json
import math
import os
import pathlib
import sys

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoTokenizer, CLIPConfig, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import families
import pictures
import tokenizer
from rows import specific, unit

SEED = 20240607
DATA = pathlib.Path(__file__).parent / "data"

# Legacy files say eos_token_id 2 and mean the largest id; newer ones name the real token, which
# need not be the largest. transformers' CLIP has square grids only: here 3 x 3, and 4 x 4 from 23
# pixels in patches of 5, where the last three rows and columns belong to no patch.
CHECKPOINTS = {
    "quick_gelu_legacy_eos": {
        "specials_last": True,
        "pad_token": "<|endoftext|>",
        "config": {
            "projection_dim": 24,
            "text_config": {
                "hidden_size": 32, "intermediate_size": 72, "num_hidden_layers": 2,
                "num_attention_heads": 2, "max_position_embeddings": 20,
                "hidden_act": "quick_gelu", "eos_token_id": 2, "bos_token_id": 0,
                "pad_token_id": 1,
            },
            "vision_config": {
                "hidden_size": 48, "intermediate_size": 100, "num_hidden_layers": 2,
                "num_attention_heads": 3, "image_size": 24, "patch_size": 8,
                "hidden_act": "quick_gelu",
            },
        },
        "processor": {
            "size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}, "resample": 3,
        },
    },
    "gelu_named_eos": {
        "specials_last": False,
        "pad_token": "!",
        "config": {
            "projection_dim": 32,
            "text_config": {
                # As wide as the projection: nothing is specific to texts.
                "hidden_size": 32, "intermediate_size": 50, "num_hidden_layers": 3,
                "num_attention_heads": 4, "max_position_embeddings": 13,
                "hidden_act": "gelu", "layer_norm_eps": 1e-3,
            },
            "vision_config": {
                "hidden_size": 40, "intermediate_size": 64, "num_hidden_layers": 1,
                "num_attention_heads": 5, "image_size": 23, "patch_size": 5,
                "hidden_act": "gelu", "layer_norm_eps": 1e-6,
            },
        },
        "processor": {
            "size": {"height": 23, "width": 23}, "do_center_crop": False, "resample": 2,
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
        },
    },
}

TEXTS = [
    "a photo of a red bicycle",
    "A PHOTO  of\ta red\nbicycle",
    "",
    " ",
    "don't stop; they're 2,048 years old!",
    "caf\u00e9 cr\u00e8me, stra\u00dfe, \u0130stanbul",
    "cafe\u0301 cre\u0300me",
    "\u5bcc\u58eb\u5c71\u3068\u685c",
    "\u043a\u0440\u0430\u0441\u043d\u044b\u0439 \u0432\u0435\u043b\u043e\u0441\u0438\u043f\u0435\u0434",
    "\U0001f6b2\U0001f469\u200d\U0001f680 \u2764\ufe0f",
    "no\u00a0break\u3000wide space",
    "an <|endoftext|> inside",
    "word " * 60,
    "supercalifragilisticexpialidocious" * 4,
    "x",
]


def randomize(model, seed):
    """Every parameter away from its default, biases and norms included."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        values = torch.randn(parameter.shape, generator=generator)
        if name == "logit_scale":
            values = torch.tensor(math.log(37.0))
        elif "norm" in name and name.endswith("weight"):
            values = 1 + 0.2 * values
        elif name.endswith("bias"):
            values = 0.2 * values
        elif "token_embedding" in name:
            values = 0.7 * values
        elif "position_embedding" in name or "class_embedding" in name:
            values = 0.3 * values
        else:
            # Larger than a trained model's, so that different inputs end far apart.
            values = 1.5 * values * parameter[0].numel() ** -0.5
        parameter.data.copy_(values)


@torch.no_grad()
def encode(model, tokens, images):
    """Outputs per text (lists of ids) and per picture ([n, 3, h, w]); one text at a time, so that
    padding plays no part."""
    texts = [model.text_model(input_ids=torch.tensor([ids])).pooler_output[0] for ids in tokens]
    out = {}
    if texts:
        texts = torch.stack(texts)
        out["text_pooled"] = texts.numpy()
        out["text_shared"] = unit(model.text_projection(texts).numpy())
        out["text_specific"] = specific(out["text_pooled"], model.text_projection.weight)
    if len(images):
        pooled = model.vision_model(pixel_values=torch.as_tensor(images)).pooler_output
        out["image_pooled"] = pooled.numpy()
        out["image_shared"] = unit(model.visual_projection(pooled).numpy())
        out["image_specific"] = specific(out["image_pooled"], model.visual_projection.weight)
    return {name: rows for name, rows in out.items() if rows is not None}


def make():
    decoded = pictures.write(DATA / "pictures", SEED)
    for number, (name, case) in enumerate(CHECKPOINTS.items()):
        folder = DATA / name
        folder.mkdir(parents=True, exist_ok=True)
        tok = tokenizer.make(case["specials_last"], case["pad_token"])
        settings = json.loads(json.dumps(case["config"]))
        text = settings["text_config"]
        text["vocab_size"] = len(tok)
        text.setdefault("bos_token_id", tok.bos_token_id)
        text.setdefault("eos_token_id", tok.eos_token_id)
        text.setdefault("pad_token_id", tok.pad_token_id)
        tok.model_max_length = text["max_position_embeddings"]
        assert (tok.eos_token_id == len(tok) - 1) == case["specials_last"]
        model = CLIPModel(CLIPConfig(**settings)).eval()
        randomize(model, SEED + number)
        processor = CLIPImageProcessorPil(**case["processor"])
        model.save_pretrained(folder)
        # In full: what is left out by save_pretrained could change with its version.
        (folder / "config.json").write_text(json.dumps(model.config.to_dict(), indent=1) + "\n")
        (folder / "preprocessor_config.json").write_text(processor.to_json_string())
        tok.backend_tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "generation_config.json").unlink(missing_ok=True)

        # From the files, as a user would.
        model = CLIPModel.from_pretrained(folder).eval()
        tokens = [tok(t, truncation=True)["input_ids"] for t in TEXTS]
        images = [
            processor(Image.fromarray(array), return_tensors="np")["pixel_values"][0]
            for array in decoded.values()
        ]
        out = encode(model, tokens, np.stack(images))
        exact = encode(model.double(), tokens, np.stack(images).astype(np.float64))
        for key in ("text_shared", "image_shared", "text_specific", "image_specific"):
            if key in out:
                print(name, key, "f32 to f64: max-abs", abs(out[key] - exact[key]).max())
            similar = out[key] @ out[key].T if key in out else None
            if similar is not None:
                print("   mean cosine between different inputs", similar.mean().round(3))
        tensors = {key: torch.from_numpy(np.ascontiguousarray(rows)) for key, rows in out.items()}
        tensors["image_pixels"] = torch.from_numpy(np.stack(images))
        save_file(tensors, folder / "expected.safetensors")
        listing = {
            "logit_scale": float(model.logit_scale.detach().exp()),
            "texts": [{"text": t, "ids": ids} for t, ids in zip(TEXTS, tokens)],
            "pictures": list(decoded),
        }
        (folder / "expected.json").write_text(json.dumps(listing, indent=1) + "\n")
    families.make(DATA, decoded, TEXTS, SEED + len(CHECKPOINTS))


def check_export(folder, result, tolerance):
    """Compares `{"items": [{"input", "shared", "specific"}]}` with what transformers makes of the
    same folder; an input that is the path of a file is a picture."""
    model = CLIPModel.from_pretrained(folder).eval()
    with safe_open(folder / "model.safetensors", "pt") as weights:
        own_specific = any("specific" in name for name in weights.keys())
    tok = AutoTokenizer.from_pretrained(folder)
    context = model.config.text_config.max_position_embeddings
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    worst = 0.0
    items = json.loads(result.read_text())["items"]
    for item in items:
        if os.path.isfile(item["input"]):
            # As bytes: from what it knows of a file with transparency, transformers 5 blends onto
            # white, where 4 and Pillow's convert drop it.
            image = Image.fromarray(pictures.decoded(pathlib.Path(item["input"]).read_bytes()))
            pixels = processor(image, return_tensors="np")["pixel_values"]
            out, modality = encode(model, [], pixels), "image"
        else:
            ids = tok(item["input"], truncation=True, max_length=context)["input_ids"]
            out, modality = encode(model, [ids], []), "text"
        for aspect in ("shared", "specific"):
            expected, got = out.get(f"{modality}_{aspect}"), item.get(aspect)
            if aspect == "specific" and own_specific:
                continue
            if (expected is None) != (got is None):
                sys.exit(f"{item['input']!r}: {aspect} is there on one side only")
            if expected is None:
                continue
            got = np.array(got, np.float32)
            difference = float(abs(got - expected[0]).max())
            print(f"{modality} {aspect}: cosine {got @ expected[0]:.7f}, "
                  f"max-abs {difference:.2e}  {item['input'][:50]!r}")
            worst = max(worst, difference)
    print(f"{len(items)} items, worst max-abs {worst:.2e}, allowed {tolerance:.0e}")
    if not items or not worst <= tolerance:
        sys.exit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("make")
    check = commands.add_parser("check-export")
    check.add_argument("folder", type=pathlib.Path)
    check.add_argument("result", type=pathlib.Path)
    check.add_argument("--tolerance", type=float, default=1e-5)
    arguments = parser.parse_args()
    if arguments.command == "make":
        make()
    else:
        check_export(arguments.folder, arguments.result, arguments.tolerance)
