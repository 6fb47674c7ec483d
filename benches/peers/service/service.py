"""A search service as it is usually put together: transformers for the towers, hnswlib for the index,
FastAPI for HTTP. The model and its data are in memory; nothing is durable until `/save`.

    MODEL=FOLDER uvicorn service:app
"""

import io
import os
import threading

import hnswlib
import numpy as np
import torch
from fastapi import FastAPI, UploadFile
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

app = FastAPI()
model = CLIPModel.from_pretrained(os.environ["MODEL"]).eval()
# The fast variant of the processor, which transformers takes where torchvision is installed.
processor = AutoImageProcessor.from_pretrained(os.environ["MODEL"])
tokenizer = AutoTokenizer.from_pretrained(os.environ["MODEL"])
index = hnswlib.Index(space="cosine", dim=model.config.projection_dim)
index.init_index(max_elements=20_000, M=16, ef_construction=200)
index.set_ef(64)
names = []
# One model and one index: whoever asks takes turns, and torch uses all cores.
lock = threading.Lock()


def rows(output):
    """Unit rows; transformers 5 wraps them."""
    output = getattr(output, "pooler_output", output)
    return torch.nn.functional.normalize(output, dim=-1).numpy()


@app.post("/items")
def add(files: list[UploadFile]):
    pictures = [Image.open(io.BytesIO(file.file.read())).convert("RGB") for file in files]
    with lock, torch.inference_mode():
        pixels = processor(images=pictures, return_tensors="pt")
        found = rows(model.get_image_features(**pixels))
        index.add_items(found, np.arange(len(names), len(names) + len(found)))
        names.extend(file.filename for file in files)
    return {"added": len(files)}


@app.post("/search")
def search(query: dict):
    with lock, torch.inference_mode():
        tokens = tokenizer([query["text"]], return_tensors="pt", truncation=True, max_length=77)
        found = rows(model.get_text_features(**tokens))
        ids, distances = index.knn_query(found, k=query["k"])
    hits = zip(ids[0].tolist(), distances[0].tolist())
    return {"hits": [{"id": names[i], "score": 1 - distance} for i, distance in hits]}


@app.post("/save")
def save(query: dict):
    with lock:
        index.save_index(query["file"])
    return {}


@app.get("/healthz")
def alive():
    return {}
