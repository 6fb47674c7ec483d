"""What the clients of OpenAI, Hugging Face and clip-retrieval get from the server at sys.argv[1]."""

import asyncio
import base64
import importlib.util
import json
import math
import struct
import sys
import tempfile
import traceback
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

URL = sys.argv[1]
COLLECTION = "pictures"
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def png(color, side=32):
    """A PNG of one color."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = (b"\0" + bytes(color) * side) * side
    data = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(data)


RED, BLUE = png((220, 30, 30)), png((30, 30, 220))
RED_URI = "data:image/png;base64," + base64.b64encode(RED).decode()


def call(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(URL + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def same(a, b):
    assert len(a) == len(b) > 0, (len(a), len(b))
    assert all(abs(x - y) < 1e-6 for x, y in zip(a, b)), "the embeddings differ"


def raises(kind, function):
    try:
        function()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def client(**options):
    return openai.OpenAI(base_url=URL + "/v1", api_key="none", **{"max_retries": 0, **options})


def embed(given, **options):
    options.setdefault("model", MODEL)
    return [one.embedding for one in client().embeddings.create(input=given, **options).data]


@check
def openai_lists_and_finds_the_model():
    models = list(client().models.list())
    assert [model.id for model in models] == [MODEL]
    assert client().models.retrieve(MODEL) == models[0]
    error = raises(openai.NotFoundError, lambda: client().models.retrieve("openai/clip"))
    assert error.code == "model_not_found" and MODEL in error.message, error


@check
def openai_embeds_in_base64_by_default_and_in_floats():
    answer = client().embeddings.create(input="a red heart", model=MODEL)
    row = answer.data[0].embedding
    assert answer.model == MODEL and answer.usage.prompt_tokens > 2
    assert abs(math.hypot(*row) - 1) < 1e-4
    same(row, embed("a red heart", encoding_format="float")[0])
    same(row, embed(["a red heart"], dimensions=len(row))[0])


@check
def openai_embeds_a_batch_in_its_order():
    words = [f"picture number {i}" for i in range(70)]
    batch = embed(words)
    assert len(batch) == 70
    for i in (0, 33, 69):
        same(batch[i], embed(words[i])[0])


@check
def openai_embeds_pictures_as_objects_and_by_modality():
    mixed = embed(["a cat", {"image": RED_URI}, {"text": "a cat"}])
    same(mixed[0], mixed[2])
    same(mixed[1], embed([RED_URI], extra_body={"modality": "image"})[0])
    same(mixed[1], embed(RED_URI)[0])
    same(mixed[1], call("GET", f"/v1/collections/{COLLECTION}/items/red?embeddings=true")["embeddings"]["shared"])


@check
def openai_takes_a_plain_string_for_a_text():
    address = "http://127.0.0.1:1/cat.png"
    same(embed(address)[0], embed([{"text": address}])[0])


@check
def openai_shows_what_is_wrong():
    error = raises(openai.BadRequestError, lambda: embed("a", dimensions=3))
    assert error.param == "dimensions" and error.code == "invalid_field", error.body
    assert error.type == "invalid_request_error" and "3" in error.message
    error = raises(openai.BadRequestError, lambda: embed([[1, 2, 3]]))
    assert "send the text itself" in error.message and error.param == "input[0]"
    error = raises(openai.NotFoundError, lambda: embed("a", model="text-embedding-3-small"))
    assert error.code == "model_not_found"
    error = raises(openai.APIStatusError, lambda: embed(["a"] * 1001))
    assert error.status_code == 413 and error.param == "input"
    broken = {"image": base64.b64encode(b"no picture").decode()}
    error = raises(openai.UnprocessableEntityError, lambda: embed(["a", broken]))
    assert error.param == "input[1].image", error.body


@check
def openai_is_told_to_try_again_when_the_queue_is_full():
    def long(_):
        try:
            embed([f"words {i}" for i in range(300)])
        except openai.RateLimitError as error:
            return error

    with ThreadPoolExecutor(12) as threads:
        refused = [error for error in threads.map(long, range(12)) if error]
    assert 0 < len(refused) < 12, len(refused)
    assert refused[0].code == "queue_full" and refused[0].type == "rate_limit_error"
    assert refused[0].response.headers["retry-after"] == "1"


@check
def openai_async_embeds():
    async def run():
        async with openai.AsyncOpenAI(base_url=URL + "/v1", api_key="none") as own:
            return await own.embeddings.create(input=["a cat"], model=MODEL)

    same(asyncio.run(run()).data[0].embedding, embed("a cat")[0])


@check
def text_embeddings_inference_answers_the_hub_client():
    tei = InferenceClient(model=URL + "/embed")
    same(tei.feature_extraction("a cat", normalize=True)[0].tolist(), embed("a cat")[0])
    long = "many words " * 200
    same(tei.feature_extraction(long, truncate=True)[0].tolist(), embed(long)[0])
    error = raises(HfHubHTTPError, lambda: tei.feature_extraction(long, truncate=False))
    assert error.response.status_code == 413 and "truncate" in str(error), error
    error = raises(HfHubHTTPError, lambda: tei.feature_extraction("a", normalize=False))
    assert error.response.status_code == 400 and "unit length" in str(error), error
    info = InferenceClient(provider="hf-inference", model=URL).get_endpoint_info()
    assert info["model_id"] == MODEL and info["max_input_length"] > 10
    assert InferenceClient(provider="hf-inference", model=URL).health_check()


@check
def zero_shot_answers_the_hub_client():
    hub = InferenceClient(model=URL + "/zero-shot-image-classification")
    labels = ["a red square", "a blue square", "a giraffe"]
    found = hub.zero_shot_image_classification(RED, labels)
    assert sorted(one.label for one in found) == sorted(labels)
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True) and abs(sum(scores) - 1) < 1e-5
    template = "This is a photo of {}."
    body = {"image": RED_URI, "labels": labels, "templates": [template]}
    ours = call("POST", "/v1/classify", body)["predictions"]
    assert [one["label"] for one in ours] == [one.label for one in found]
    assert abs(ours[0]["probability"] - scores[0]) < 1e-6
    bad = lambda: hub.zero_shot_image_classification(RED, labels, hypothesis_template="a photo")
    error = raises(HfHubHTTPError, bad)
    assert "parameters.hypothesis_template" in str(error), error


def clip_client():
    """The module of the client alone: the package would load all of its server."""
    package = Path(importlib.util.find_spec("clip_retrieval").origin).parent
    spec = importlib.util.spec_from_file_location("clip_client", package / "clip_client.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@check
def clip_retrieval_finds():
    module = clip_client()
    url = URL + "/knn-service"
    own = module.ClipClient(url=url, indice_name=COLLECTION, num_images=5)
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        file.write(RED)
        file.flush()
        found = own.query(image=file.name)
    assert [one["id"] for one in found][0] == "red" and found[0]["similarity"] > 0.999, found
    assert found[0]["caption"] == "a red square" and found[0]["by"] == "me"
    with urllib.request.urlopen(found[0]["url"], timeout=60) as picture:
        assert picture.read()[1:4] == b"PNG"
    row = embed([{"image": RED_URI}])[0]
    assert own.query(embedding_input=row)[0]["id"] == "red"
    assert len(own.query(text="a blue square")) == 2
    texts = module.ClipClient(url=url, indice_name=COLLECTION, modality=module.Modality.TEXT)
    found = texts.query(text="a giraffe")
    assert [one["caption"] for one in found] == ["a giraffe"] and found[0]["similarity"] > 0.999
    refused = own.query(image="http://127.0.0.1:1/cat.png")
    assert refused["error"]["field"] == "image_url", refused


def main():
    global MODEL
    MODEL = call("GET", "/v1/models")["data"][0]["id"]
    call("PUT", f"/v1/collections/{COLLECTION}")
    encode = lambda data: base64.b64encode(data).decode()
    payload = {"caption": "a red square", "by": "me"}
    for item in [
        {"id": "red", "image": encode(RED), "payload": payload},
        {"id": "blue", "image": encode(BLUE)},
        {"id": "giraffe", "text": "a giraffe"},
    ]:
        call("POST", f"/v1/collections/{COLLECTION}/items", item)
    failed = 0
    for function in CHECKS:
        try:
            function()
            print("ok    ", function.__name__, flush=True)
        except Exception:
            failed += 1
            print("FAILED", function.__name__, flush=True)
            traceback.print_exc()
    print(f"{len(CHECKS) - failed} passed, {failed} failed", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
