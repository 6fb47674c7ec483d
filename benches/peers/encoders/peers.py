"""One peer in a process of its own: loads a tower of each kind, then answers lines as our
`encode_rows` does (`run image 8 3`, `embed image FILE`).

    python peers.py ENGINE PRECISION MODEL FOLDER THREADS
"""

import json
import os
import sys
import time

import numpy as np

import models


class Unsupported(Exception):
    """The engine is there and cannot do this here."""


def refuse_without_instructions(precision):
    """Leaves bfloat16 out where it would be computed by way of something else."""
    if precision == "bf16":
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            if "bf16" not in file.read():
                raise Unsupported("this processor has no instructions for it")


class Onnx:
    """ONNX Runtime, which has f32 and dynamic int8."""

    def __init__(self, folder, precision, threads):
        import onnxruntime

        self.version = onnxruntime.__version__
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        ending = ".int8.onnx" if precision == "int8" else ".onnx"
        self.towers = {
            tower: onnxruntime.InferenceSession(
                os.path.join(folder, "exports", tower + ending), options,
                providers=["CPUExecutionProvider"],
            )
            for tower in ("image", "text")
        }

    def encode(self, tower, rows):
        return self.towers[tower].run(None, {"inputs": rows})[0]


class OpenVino:
    """OpenVINO: f32 and bf16 by its hint, int8 by its file."""

    def __init__(self, folder, precision, threads):
        import openvino

        self.version = openvino.__version__.split("-")[0]
        hints = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        }
        # Without the instructions it accepts the hint, and was not done with its first job after minutes.
        refuse_without_instructions(precision)
        core = openvino.Core()
        ending = ".int8.xml" if precision == "int8" else ".onnx"
        self.towers = {
            tower: core.compile_model(
                os.path.join(folder, "exports", tower + ending), "CPU", hints
            ).create_infer_request()
            for tower in ("image", "text")
        }

    def encode(self, tower, rows):
        return self.towers[tower].infer({0: rows}, share_inputs=True)[0]


class Torch:
    """torch without compilation, f32 and bf16."""

    def __init__(self, folder, precision, threads):
        import torch
        from transformers import AutoModel

        # Without the instructions it takes some four times as long as in f32.
        refuse_without_instructions(precision)
        self.torch, self.version = torch, torch.__version__
        torch.set_num_threads(threads)
        self.type = torch.bfloat16 if precision == "bf16" else torch.float32
        self.towers = models.towers(AutoModel.from_pretrained(folder, dtype=self.type))

    def encode(self, tower, rows):
        with self.torch.inference_mode():
            rows = self.torch.from_numpy(rows)
            rows = rows.to(self.type) if tower == "image" else rows
            return self.towers[tower](rows).float().numpy()


ENGINES = {"onnxruntime": Onnx, "openvino": OpenVino, "torch": Torch}


class Side:
    """An engine and what it encodes."""

    def __init__(self, engine, precision, model, folder, threads):
        self.engine = ENGINES[engine](folder, precision, threads)
        side = models.MODELS[model]["side"]
        pixels = np.load(os.path.join(folder, "inputs", "pixels.npy"))
        self.inputs = {"image": pixels.reshape(-1, 3, side, side)}
        # Tokens are made beforehand here; ours makes them each time.
        for kind in models.lists(model):
            self.inputs[kind] = models.ids(model, folder, kind)

    def rows(self, kind, first, batch):
        rows = self.inputs[kind]
        rows = np.ascontiguousarray(rows[[i % len(rows) for i in range(first, first + batch)]])
        if kind == "mixed":
            # As far as the longest of this batch.
            longest = (rows != models.PAD).sum(axis=1).max() + 1
            rows = np.ascontiguousarray(rows[:, :longest])
        return rows

    def run(self, kind, batch, repeats):
        wall, cpu = [], []
        for i in range(repeats):
            rows = self.rows(kind, i * batch, batch)
            began, before = time.perf_counter(), time.process_time()
            self.engine.encode("image" if kind == "image" else "text", rows)
            wall.append(time.perf_counter() - began)
            cpu.append(time.process_time() - before)
        return {"wall_s": wall, "cpu_s": cpu}

    def embed(self, kind, file):
        rows = self.inputs[kind]
        np.save(file, self.engine.encode("image" if kind == "image" else "text", rows))
        return {"rows": len(rows)}


def main():
    engine, precision, model, folder, threads = sys.argv[1:]
    try:
        side = Side(engine, precision, model, folder, int(threads))
    except (ImportError, Unsupported) as error:
        print(json.dumps({"missing": str(error)}), flush=True)
        return
    print(json.dumps({"version": side.engine.version}), flush=True)
    for line in sys.stdin:
        match line.split():
            case ["run", kind, batch, repeats]:
                answer = side.run(kind, int(batch), int(repeats))
            case ["embed", kind, file]:
                answer = side.embed(kind, file)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
