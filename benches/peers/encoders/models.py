"""Random CLIP and SigLIP checkpoints with their inputs and exports, made once per cache folder.

`CACHE/NAME/` is the model folder (config.json, preprocessor_config.json, tokenizer.json,
model.safetensors), `CACHE/NAME/inputs/` has pixels.npy and captions.json, `CACHE/NAME/exports/` what
ONNX Runtime and OpenVINO run. A folder that was not finished is made again.
"""

import json
import os
import random
import shutil

SEED = 7
# Pixels and captions of each kind; batches go round them.
INPUTS = 32
# A change here, or in what is made below, makes everything again.
VERSION = 1

# The end of text, which also pads.
PAD = 53
LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Sizes are those of transformers' own defaults where nothing is said.
MODELS = {
    "clip": {"name": "CLIP ViT-B/32", "family": "clip", "side": 224, "patch": 32, "context": 77},
    "siglip": {"name": "SigLIP B/16", "family": "siglip", "side": 224, "patch": 16, "context": 64},
    "clip-b32-256": {
        "name": "CLIP ViT-B/32-256", "family": "clip", "side": 256, "patch": 32, "context": 77,
    },
    "clip-l14": {
        "name": "CLIP ViT-L/14", "family": "clip", "side": 224, "patch": 14, "context": 77,
        "vision": {
            "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
            "num_attention_heads": 16, "projection_dim": 768,
        },
        "text": {
            "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
            "projection_dim": 768,
        },
        "dim": 768,
    },
    "siglip-so400m14-384": {
        "name": "SigLIP So400m/14-384", "family": "siglip", "side": 384, "patch": 14, "context": 64,
        **{
            tower: {
                "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
                "num_attention_heads": 16,
            }
            for tower in ("vision", "text")
        },
    },
}
# Those that are compared where none is named.
COMPARED = ["clip", "siglip"]
# Words of the captions of a family by the names of their lists, which say their tokens; a word is a token.
KINDS = {
    "clip": {"text77": (75, 75), "text16": (14, 14), "mixed": (4, 60)},
    # Always padded to its context.
    "siglip": {"text64": (63, 63)},
}


def kinds(model):
    """What can be measured: `image` and the lists of captions."""
    return ["image", *lists(model)]


def lists(model):
    """Its lists of captions: least and most words by the name of a list."""
    return KINDS[family(model)]


def family(model):
    return MODELS[model]["family"]


def checkpoint(model):
    """The transformers model with seeded weights, whose outputs differ between inputs."""
    import torch
    from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

    of = MODELS[model]
    # The ids of the special tokens are those of the tokenizer below.
    text = {"bos_token_id": 52, "eos_token_id": PAD, "pad_token_id": PAD, **of.get("text", {})}
    vision = {"patch_size": of["patch"], "image_size": of["side"], **of.get("vision", {})}
    configs = {"text_config": text, "vision_config": vision}
    if of["family"] == "clip":
        net = CLIPModel(CLIPConfig(projection_dim=of.get("dim", 512), **configs))
    else:
        net = SiglipModel(SiglipConfig(**configs))
    generator = torch.Generator().manual_seed(SEED)
    for name, weight in sorted(net.named_parameters()):
        values = torch.randn(weight.shape, generator=generator)
        if name in ("logit_scale", "logit_bias"):
            continue
        if "norm" in name and name.endswith("weight"):
            values = 1 + 0.1 * values
        elif name.endswith("bias"):
            values = 0.05 * values
        elif "embedding" in name and "patch" not in name or "probe" in name:
            values = 0.3 * values
        else:
            # About as large as trained ones: the residual stream keeps what an input says.
            values = 1.2 * values * weight[0].numel() ** -0.5
        weight.data.copy_(values)
    return net.eval()


def tokenizer(model):
    """Bytes only: each word of one letter is one token. CLIP's layout, SigLIP's end only."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tokens = [*LETTERS, *(letter + "</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    made = Tokenizer(
        models.BPE(
            {token: i for i, token in enumerate(tokens)}, [], end_of_word_suffix="</w>",
            unk_token="<|endoftext|>",
        )
    )
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(tokens[-2:])
    start = "<|startoftext|> " if family(model) == "clip" else ""
    made.post_processor = processors.TemplateProcessing(
        single=f"{start}$A <|endoftext|>",
        special_tokens=[(token, tokens.index(token)) for token in tokens[-2:]],
    )
    if family(model) == "siglip":
        made.enable_padding(pad_id=PAD, pad_token="<|endoftext|>", length=64)
    return made


def preprocessor(model):
    side = MODELS[model]["side"]
    exact = {"height": side, "width": side}
    clip = family(model) == "clip"
    return {
        "image_processor_type": "CLIPImageProcessor" if clip else "SiglipImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": side} if clip else exact,
        "resample": 3,
        **({"do_center_crop": True, "crop_size": exact} if clip else {}),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073] if clip else [0.5] * 3,
        "image_std": [0.26862954, 0.26130258, 0.27577711] if clip else [0.5] * 3,
        "do_convert_rgb": True,
    }


def inputs(model, folder):
    """Pixels of smooth patches with grain, and captions of the wanted lengths."""
    import numpy as np

    rng, side = np.random.default_rng(SEED), MODELS[model]["side"]
    wide = -(-side // 7)
    patches = rng.standard_normal((INPUTS, 3, 7, 7)).repeat(wide, 2).repeat(wide, 3)
    patches = patches[:, :, :side, :side]
    pixels = patches + 0.2 * rng.standard_normal(patches.shape)
    np.save(os.path.join(folder, "pixels.npy"), pixels.reshape(INPUTS, -1).astype(np.float32))
    words = random.Random(SEED)
    captions = {
        kind: [
            " ".join(words.choices(LETTERS, k=words.randint(least, most))) for _ in range(INPUTS)
        ]
        for kind, (least, most) in lists(model).items()
    }
    with open(os.path.join(folder, "captions.json"), "w", encoding="utf-8") as file:
        json.dump(captions, file)


def ids(model, folder, kind):
    """Token ids of captions, int64 `[INPUTS, tokens]`, padded to the longest of them."""
    import numpy as np
    from tokenizers import Tokenizer

    with open(os.path.join(folder, "inputs", "captions.json"), encoding="utf-8") as file:
        captions = json.load(file)[kind]
    made = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    found = [made.encode(caption).ids for caption in captions]
    longest = max(map(len, found))
    return np.array([row + [PAD] * (longest - len(row)) for row in found], dtype=np.int64)


def towers(net):
    """Both towers as modules that end in unit embeddings."""
    import torch

    class Image(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.vision_model = net.vision_model
            self.project = getattr(net, "visual_projection", torch.nn.Identity())

        def forward(self, pixels):
            rows = self.project(self.vision_model(pixel_values=pixels).pooler_output)
            return rows / rows.norm(dim=-1, keepdim=True)

    class Text(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.text_model = net.text_model
            self.project = getattr(net, "text_projection", torch.nn.Identity())

        def forward(self, ids):
            # Causal (CLIP), or trained with its padding (SigLIP): no mask is needed.
            rows = self.project(self.text_model(input_ids=ids).pooler_output)
            return rows / rows.norm(dim=-1, keepdim=True)

    return {"image": Image().eval(), "text": Text().eval()}


def export(model, net, folder):
    """ONNX files of both towers, and those of 8 bits for ONNX Runtime and OpenVINO."""
    import numpy as np
    import nncf
    import openvino
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    exports = os.path.join(folder, "exports")
    os.makedirs(exports)
    side = MODELS[model]["side"]
    pixels = np.load(os.path.join(folder, "inputs", "pixels.npy")).reshape(-1, 3, side, side)
    texts = [ids(model, folder, kind) for kind in lists(model)]
    examples = {"image": [pixels], "text": texts}
    for tower, module in towers(net).items():
        path = os.path.join(exports, f"{tower}.onnx")
        example = torch.from_numpy(examples[tower][0][:2])
        batch = torch.export.Dim("batch", min=1, max=256)
        axes = {0: batch}
        if tower == "text" and family(model) == "clip":
            axes[1] = torch.export.Dim("tokens", min=2, max=MODELS[model]["context"])
        torch.onnx.export(
            module, (example,), path, dynamo=True, dynamic_shapes=(axes,), input_names=["inputs"],
            output_names=["rows"], external_data=False,
        )
        ready = os.path.join(exports, f"{tower}.ready.onnx")
        quant_pre_process(path, ready, skip_symbolic_shape=True)
        quantize_dynamic(
            ready, os.path.join(exports, f"{tower}.int8.onnx"), per_channel=True,
            weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"],
        )
        os.remove(ready)
        read = openvino.Core().read_model(path)
        # With scales of activations from these inputs, since int8 weights alone gain no speed.
        samples = [of[i : i + 4] for of in examples[tower] for i in range(0, INPUTS, 4)]
        int8 = nncf.quantize(
            read, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(samples),
        )
        openvino.save_model(int8, os.path.join(exports, f"{tower}.int8.xml"))


def make(model, cache, exported=True):
    """The folder of a model, made if it is not there, with the exports of its towers if they are needed."""
    folder = os.path.join(cache, model)
    marks = [os.path.join(folder, name) for name in ("complete.json", "folder.json")]
    for mark in marks[: 1 if exported else 2]:
        try:
            with open(mark, encoding="utf-8") as file:
                if json.load(file) == VERSION:
                    return folder
        except (OSError, ValueError):
            pass
    print(f"making {MODELS[model]['name']}: some minutes", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    net = checkpoint(model)
    write(model, net, folder)
    os.makedirs(os.path.join(folder, "inputs"))
    inputs(model, os.path.join(folder, "inputs"))
    if exported:
        export(model, net, folder)
    with open(marks[0 if exported else 1], "w", encoding="utf-8") as file:
        json.dump(VERSION, file)
    return folder


def write(model, net, folder):
    """The model folder alone."""
    os.makedirs(folder)
    net.save_pretrained(folder)
    complete_config(folder)
    tokenizer(model).save(os.path.join(folder, "tokenizer.json"))
    if family(model) == "siglip":
        # Without it the tokenizer counts as SigLIP's own, which pads with another token.
        rules = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<|endoftext|>"}
        with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as file:
            json.dump(rules, file)
    with open(os.path.join(folder, "preprocessor_config.json"), "w", encoding="utf-8") as file:
        json.dump(preprocessor(model), file, indent=2)


def complete_config(folder):
    """Writes out what transformers leaves to its defaults."""
    from transformers import AutoConfig

    path = os.path.join(folder, "config.json")
    full = AutoConfig.from_pretrained(folder).to_dict()
    with open(path, encoding="utf-8") as file:
        written = json.load(file)
    for part in ("text_config", "vision_config"):
        written[part] = {**full[part], **written[part]}
    for key in ("projection_dim",):
        if key in full:
            written[key] = full[key]
    with open(path, "w", encoding="utf-8") as file:
        json.dump(written, file, indent=2)
