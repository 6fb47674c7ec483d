"""Tiny random checkpoints of the families beside plain CLIP, and what their references make of them."""

import gzip
import json
import pathlib
import tempfile

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    AutoTokenizer, CLIPConfig, CLIPModel, Siglip2Config, Siglip2Model, SiglipConfig, SiglipModel,
    SiglipTokenizer,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

import tokenizer
from rows import specific, unit

PICTURES = [
    "wide.png", "tall.png", "tiny.png", "square.png", "gray.png", "alpha.png", "cmyk.jpg",
    "turned_6.jpg",
]
LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 2}


def randomize(model, seed):
    """Every parameter away from its default, at 16 bits, as which it is stored."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        values = torch.randn(parameter.shape, generator=generator)
        if name == "logit_scale":
            values = torch.full(parameter.shape, 3.5)
        elif name == "logit_bias":
            values = torch.full(parameter.shape, -7.25)
        elif name.endswith("weight") and values.dim() == 1:
            values = 1 + 0.2 * values
        elif name.endswith("bias"):
            values = 0.2 * values
        elif "embedding" in name and "patch" not in name:
            values = 0.5 * values
        else:
            # Larger than a trained model's, so that different inputs end far apart.
            values = 1.5 * values * (values.numel() / values.shape[0]) ** -0.5
        parameter.data.copy_(values.half())
    return model.eval()


def write(folder, texts, tokens, out, pixels, scale, bias=None):
    """Expected values: rows by name, pixels per picture (of any size), ids per text."""
    tensors = {key: torch.from_numpy(np.ascontiguousarray(rows)) for key, rows in out.items() if rows is not None}
    for name, values in zip(PICTURES, pixels):
        tensors[f"pixels/{name}"] = torch.from_numpy(np.ascontiguousarray(values, np.float32))
    save_file(tensors, folder / "expected.safetensors")
    listing = {"logit_scale": float(scale)} | ({} if bias is None else {"logit_bias": float(bias)})
    listing |= {"texts": [{"text": t, "ids": ids} for t, ids in zip(texts, tokens)], "pictures": PICTURES}
    (folder / "expected.json").write_text(json.dumps(listing, indent=1) + "\n")
    for name in ("text_shared", "image_shared"):
        print(folder.name, name, "mean cosine", (out[name] @ out[name].T).mean().round(3))


def save(model, config, processor, folder):
    """As transformers saves them, but for a full configuration and 16 bits."""
    tensors = {name: t.half().contiguous() for name, t in model.state_dict().items() if t.is_floating_point()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    (folder / "preprocessor_config.json").write_text(processor.to_json_string())


def images(decoded):
    return [Image.fromarray(decoded[name]) for name in PICTURES]


@torch.no_grad()
def siglip(folder, decoded, texts, seed):
    """SigLIP; the ids are those of its own tokenizer, which cleans texts and runs sentencepiece."""
    with tempfile.TemporaryDirectory() as scratch:
        file, tok = tokenizer.sentencepiece(pathlib.Path(scratch))
        reference = SiglipTokenizer(str(file), model_max_length=16)
        tokens = [reference(t, padding="max_length", truncation=True)["input_ids"] for t in texts]
    tok.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "SiglipTokenizer", "model_max_length": 16, "pad_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings) + "\n")
    # All that is left out here has its default.
    config = {
        "model_type": "siglip",
        "text_config": LAYERS | {
            "vocab_size": tok.get_vocab_size(), "hidden_size": 24, "intermediate_size": 40,
            "max_position_embeddings": 16,
        },
        "vision_config": LAYERS | {
            "hidden_size": 24, "intermediate_size": 40, "image_size": 21, "patch_size": 5,
        },
    }
    model = randomize(SiglipModel(SiglipConfig(**config)), seed)
    processor = SiglipImageProcessorPil(size={"height": 21, "width": 21})
    save(model, config, processor, folder)
    model = SiglipModel.from_pretrained(folder, dtype=torch.float32).eval()
    pixels = [processor(image, return_tensors="np")["pixel_values"][0] for image in images(decoded)]
    out = siglip_rows(model, tokens, {"pixel_values": torch.tensor(np.stack(pixels))})
    write(folder, texts, tokens, out, pixels, model.logit_scale.exp(), model.logit_bias)


def siglip_rows(model, tokens, vision):
    """`vision` are the arguments for all pictures. No projection leaves anything out: pictures
    have none, and that of texts has full rank."""
    shared = model.get_text_features(input_ids=torch.tensor(tokens)).pooler_output.numpy()
    image = model.get_image_features(**vision).pooler_output.numpy()
    return {"text_shared": unit(shared), "image_shared": unit(image)}


@torch.no_grad()
def siglip2(folder, decoded, texts, seed, naflex):
    """SigLIP 2: of one size, where the hub's files name GemmaTokenizer, or NaFlex."""
    tok = tokenizer.gemma()
    tok.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "GemmaTokenizer", "add_bos_token": False, "add_eos_token": True,
        "padding_side": "right", "do_lower_case": True, "pad_token": "<pad>", "bos_token": "<bos>",
        "eos_token": "<eos>", "unk_token": "<unk>", "model_max_length": 10**30,
        "model_input_names": ["input_ids"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings) + "\n")
    size = {"num_patches": 16, "patch_size": 4} if naflex else {"image_size": 24, "patch_size": 8}
    config = {
        "model_type": "siglip2" if naflex else "siglip",
        "text_config": LAYERS | {
            "vocab_size": tok.get_vocab_size(), "hidden_size": 16, "intermediate_size": 24,
            "max_position_embeddings": 12, "projection_size": 20,
        },
        "vision_config": LAYERS | {"hidden_size": 20, "intermediate_size": 36} | size,
    }
    if naflex:
        model = randomize(Siglip2Model(Siglip2Config(**config)), seed)
        processor = Siglip2ImageProcessorPil(patch_size=4, max_num_patches=24)
    else:
        model = randomize(SiglipModel(SiglipConfig(**config)), seed)
        processor = SiglipImageProcessorPil(size={"height": 24, "width": 24}, resample=2)
    save(model, config, processor, folder)
    reference = AutoTokenizer.from_pretrained(folder)
    print(folder.name, type(reference).__name__, reference.padding_side)
    tokens = [reference(t, padding="max_length", truncation=True, max_length=12)["input_ids"] for t in texts]
    model = type(model).from_pretrained(folder, dtype=torch.float32).eval()
    if not naflex:
        pixels = [processor(image, return_tensors="np")["pixel_values"][0] for image in images(decoded)]
        vision = {"pixel_values": torch.tensor(np.stack(pixels))}
    else:
        vision = processor(images(decoded), return_tensors="pt")
        pixels = []
        for values, (rows, columns) in zip(vision["pixel_values"].numpy(), vision["spatial_shapes"].tolist()):
            patches = values[: rows * columns].reshape(rows, columns, 4, 4, 3)
            pixels.append(patches.transpose(4, 0, 2, 1, 3).reshape(3, rows * 4, columns * 4))
    out = siglip_rows(model, tokens, dict(vision))
    write(folder, texts, tokens, out, pixels, model.logit_scale.exp(), model.logit_bias)


@torch.no_grad()
def interpolated(folder, decoded, texts, seed):
    """CLIP given pictures of another size than its positions were learned for."""
    tok = tokenizer.make(True, "<|endoftext|>")
    tok.model_max_length = 12
    tok.backend_tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "model_type": "clip", "projection_dim": 12,
        "text_config": LAYERS | {
            "vocab_size": len(tok), "hidden_size": 16, "intermediate_size": 24,
            "max_position_embeddings": 12, "eos_token_id": tok.eos_token_id,
        },
        "vision_config": LAYERS | {
            "hidden_size": 24, "intermediate_size": 36, "image_size": 24, "patch_size": 8,
        },
    }
    model = randomize(CLIPModel(CLIPConfig(**config)), seed)
    processor = CLIPImageProcessorPil(size={"height": 41, "width": 32}, do_center_crop=False, resample=1)
    save(model, config, processor, folder)
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = [tok(t, truncation=True)["input_ids"] for t in texts]
    pixels = [processor(image, return_tensors="np")["pixel_values"][0] for image in images(decoded)]
    text = torch.stack([model.text_model(input_ids=torch.tensor([ids])).pooler_output[0] for ids in tokens])
    image = model.vision_model(
        pixel_values=torch.tensor(np.stack(pixels)), interpolate_pos_encoding=True
    ).pooler_output
    out = {
        "text_shared": unit(model.text_projection(text).numpy()),
        "text_specific": specific(text.numpy(), model.text_projection.weight),
        "image_shared": unit(model.visual_projection(image).numpy()),
        "image_specific": specific(image.numpy(), model.visual_projection.weight),
    }
    write(folder, texts, tokens, out, pixels, model.logit_scale.exp())


OPEN_CLIP = {
    # As LAION's and DataComp's ViT-B/32.
    "open_clip_plain": {
        "model_cfg": {
            "embed_dim": 12, "quick_gelu": True,
            "vision_cfg": {"image_size": 24, "layers": 2, "width": 24, "head_width": 12, "patch_size": 8},
            "text_cfg": {"context_length": 14, "width": 16, "heads": 2, "layers": 2},
        },
        "preprocess_cfg": {"interpolation": "bicubic"},
    },
    "open_clip_custom": {
        "model_cfg": {
            "embed_dim": 12, "custom_text": True, "init_logit_bias": -10,
            "vision_cfg": {
                "image_size": 27, "layers": 1, "width": 24, "head_width": 8, "patch_size": 9,
                "mlp_ratio": 1.7, "act_kwargs": {"approximate": "tanh"}, "norm_kwargs": {"eps": 1e-3},
                "pool_type": "avg",
            },
            "text_cfg": {
                "context_length": 14, "width": 16, "heads": 2, "layers": 1, "mlp_ratio": 3,
                "proj_bias": True, "pool_type": "eos", "norm_kwargs": {"eps": 1e-3},
            },
        },
        "preprocess_cfg": {
            "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear",
            "resize_mode": "longest", "fill_color": 128,
        },
    },
    # As CLIPA.
    "open_clip_clipa": {
        "model_cfg": {
            "embed_dim": 16,
            "vision_cfg": {
                "image_size": 20, "layers": 2, "width": 16, "head_width": 8, "patch_size": 5,
                "no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True,
                "pos_embed_type": "sin_cos_2d",
            },
            "text_cfg": {
                "context_length": 10, "width": 16, "heads": 2, "layers": 2, "pool_type": "last",
                "no_causal_mask": True, "hf_tokenizer_name": "bert-base-uncased",
                "tokenizer_kwargs": {"strip_sep_token": True},
            },
        },
        "preprocess_cfg": {
            "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "interpolation": "bilinear",
            "resize_mode": "squash",
        },
    },
}


@torch.no_grad()
def open_clip_folder(folder, decoded, texts, seed, case):
    """A folder in OpenCLIP's own form."""
    case = json.loads(json.dumps(case))
    text = case["model_cfg"]["text_cfg"]
    context = text["context_length"]
    if "hf_tokenizer_name" in text:
        tok = tokenizer.wordpiece()
        text["vocab_size"] = len(tok)
        tok.backend_tokenizer.save(str(folder / "tokenizer.json"))
        settings = {"tokenizer_class": "BertTokenizer", "pad_token": "[PAD]"}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings) + "\n")
        tok = open_clip.tokenizer.HFTokenizer(str(folder), context, strip_sep_token=True)
        tokens = [tok(t)[0].tolist() for t in texts]
    else:
        ours = tokenizer.make(True, "<|endoftext|>", list(open_clip.tokenizer.bytes_to_unicode().values()))
        text["vocab_size"], text["eos_id"] = len(ours), ours.eos_token_id
        ours.backend_tokenizer.save(str(folder / "tokenizer.json"))
        with tempfile.TemporaryDirectory() as scratch:
            file = pathlib.Path(scratch) / "merges.txt.gz"
            lines = ["#version"] + [" ".join(pair) for pair in tokenizer.merges()]
            file.write_bytes(gzip.compress("\n".join(lines).encode()))
            tok = open_clip.tokenizer.SimpleTokenizer(str(file), context_length=context)
        assert tok.eot_token_id == ours.eos_token_id
        # It spells the special tokens otherwise, and so does not know them in a text.
        texts = [t for t in texts if "<|" not in t]
        tokens = [tok(t)[0].tolist() for t in texts]
    settings = json.loads(json.dumps(case["model_cfg"]))
    custom = settings.pop("custom_text", False)
    model = (open_clip.model.CustomTextCLIP if custom else open_clip.CLIP)(**settings)
    randomize(model, seed)
    tensors = {name: t.half().contiguous() for name, t in model.state_dict().items()}
    save_file(tensors, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps(case, indent=1) + "\n")
    # From the files, as a user would.
    model, prepare = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    model = model.float().eval()
    pixels = [prepare(image).numpy() for image in images(decoded)]
    ids = torch.tensor(tokens)
    shared = {"text": model.encode_text(ids), "image": model.encode_image(torch.tensor(np.stack(pixels)))}
    pooled, projection = {}, {}
    projection["image"], model.visual.proj = model.visual.proj, None
    pooled["image"] = model.encode_image(torch.tensor(np.stack(pixels)))
    tower = model.text if custom else model
    projection["text"], tower.text_projection = tower.text_projection, None
    pooled["text"] = model.encode_text(ids)
    out = {}
    for which, rows in shared.items():
        weight = projection[which]
        weight = weight.weight if isinstance(weight, torch.nn.Linear) else weight.T
        out[f"{which}_shared"] = unit(rows.numpy())
        out[f"{which}_specific"] = specific(pooled[which].numpy(), weight)
    if "hf_tokenizer_name" not in text:
        # The tower looks at nothing after the end of text; zeros there are for the tensor's shape.
        tokens = [row[: row.index(text["eos_id"]) + 1] for row in tokens]
    write(folder, texts, tokens, out, pixels, model.logit_scale.exp(), model.logit_bias)


def defaults(folder):
    """What configurations mean that say nothing."""
    for kind in (CLIPConfig, SiglipConfig, Siglip2Config):
        config = kind().to_dict()
        (folder / f"{config['model_type']}.json").write_text(json.dumps(config, indent=1) + "\n")


def make(data, decoded, texts, seed):
    def at(name):
        folder = data / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    siglip(at("siglip"), decoded, texts, seed)
    siglip2(at("siglip2"), decoded, texts, seed + 1, naflex=False)
    siglip2(at("siglip2_naflex"), decoded, texts, seed + 2, naflex=True)
    interpolated(at("clip_interpolated"), decoded, texts, seed + 3)
    for number, (name, case) in enumerate(OPEN_CLIP.items()):
        open_clip_folder(at(name), decoded, texts, seed + 4 + number, case)
    defaults(at("defaults"))
