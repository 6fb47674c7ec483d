"""Picture files to CLIP's pixels, ours and transformers', in turns on one thread; see run.sh.

Each way reads, decodes, resizes, crops and normalizes every file of a folder, one after another; rounds go
through all ways in a random order of their own, and a figure is the median over the rounds. Beside each
speed stands how far its pixels are from those of the PIL way, in gray levels.
"""

import argparse
import io
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from shared import refuse_if_busy

SETTLE_S = 300
SEED = 7
SIDE = 224


def arguments():
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="pictures, JPEG for the ways that read nothing else")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", help="write all figures there, too")
    parser.add_argument("--busy-ok", action="store_true", help="measure on a busy machine")
    parser.add_argument("--binary", help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}, expected at least 1")
    return options


class Ours:
    """Our way, in a process that waits for its turn."""

    def __init__(self, binary, folder):
        self.process = subprocess.Popen(
            [binary, "--turns", "--photos", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit("our program ended early")
        return json.loads(line)["seconds"]

    def pixels(self, path):
        """Values `[3, side, side]` of one file."""
        import numpy as np

        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        values = np.array(json.loads(self.process.stdout.readline())["pixels"], dtype=np.float32)
        return values.reshape(3, SIDE, SIDE)


def theirs():
    """Name to a function from the bytes of a file to pixel values."""
    import torch
    from PIL import Image
    from torchvision.io import ImageReadMode, decode_image
    from transformers import CLIPImageProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    torch.set_num_threads(1)
    slow, fast = CLIPImageProcessorPil(), CLIPImageProcessor()

    def opened(data):
        return Image.open(io.BytesIO(data)).convert("RGB")

    def of(processor, picture):
        return processor(picture, return_tensors="pt")["pixel_values"][0]

    def tensor(data):
        raw = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return decode_image(raw, mode=ImageReadMode.RGB)

    return {
        "transformers_pil": lambda data: of(slow, opened(data)),
        "transformers_default": lambda data: of(fast, opened(data)),
        "transformers_torchvision": lambda data: of(fast, tensor(data)),
    }


def read(path):
    with open(path, "rb") as file:
        return file.read()


def compare(options):
    load_before = refuse_if_busy(options, SETTLE_S)
    paths = sorted(entry.path for entry in os.scandir(options.folder) if entry.is_file())
    ways = theirs()
    ours = Ours(options.binary, options.folder)

    def timed(way):
        start = time.perf_counter()
        for path in paths:
            way(read(path))
        return time.perf_counter() - start

    runs = {"diptych": ours.seconds} | {
        name: lambda way=way: timed(way) for name, way in ways.items()
    }
    seconds = {name: [] for name in runs}
    shuffle = random.Random(SEED)
    # The first round warms up.
    for round_ in range(options.rounds + 1):
        for name in shuffle.sample(list(runs), len(runs)):
            took = runs[name]()
            if round_:
                seconds[name].append(took)
    speeds = {name: len(paths) / statistics.median(took) for name, took in seconds.items()}
    # A gray level in normalized units, of the channel with the smallest deviation.
    level = 1 / 255 / 0.26130258
    apart = {name: [] for name in runs if name != "transformers_pil"}
    for path in paths:
        expected = ways["transformers_pil"](read(path)).numpy()
        for name, differences in apart.items():
            got = ours.pixels(path) if name == "diptych" else ways[name](read(path)).numpy()
            differences.append(float(abs(got - expected).max()) / level)
    best = max(speed for name, speed in speeds.items() if name != "diptych")
    return {
        "pictures": len(paths),
        "rounds": options.rounds,
        "python": platform.python_version(),
        "load_before": load_before,
        "load_after": os.getloadavg()[0],
        "pictures_per_s": speeds,
        "largest_difference_to_pil_in_gray_levels": {n: max(d) for n, d in apart.items()},
        "to_best": speeds["diptych"] / best,
        "to_pil": speeds["diptych"] / speeds["transformers_pil"],
    }


def main():
    options = arguments()
    if options.check:
        refuse_if_busy(options, 0)
        return
    result = compare(options)
    apart = result["largest_difference_to_pil_in_gray_levels"]
    for name, speed in result["pictures_per_s"].items():
        print(f"{name:26} {speed:8.1f} pictures/s  {apart.get(name, 0):5.2f} gray levels at most")
    print(f"ours to their best {result['to_best']:.2f}, to their PIL way {result['to_pil']:.2f}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()
