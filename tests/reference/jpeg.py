"""JPEG files of many kinds under data/jpeg, and the very samples that Pillow decodes from them.

    python jpeg.py

Needs the numpy, pillow and safetensors of requirements.txt. Files of kinds that Pillow does not
write are made of others by changing their heads.
"""

import io
import os

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "jpeg")
SEED = 11


def picture(rng, width, height, channels=3):
    """A gradient with noise and a few hard edges."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / (3 + 2 * c)) * np.cos(y / (4 + c)) * 90 + 128 for c in range(channels)]
    values = np.stack(waves, -1) + rng.normal(0, 12, (height, width, channels))
    values[height // 3 : height // 2, width // 4 : width // 2] = rng.integers(0, 256, channels)
    values = values.clip(0, 255).astype(np.uint8)
    return values[..., 0] if channels == 1 else values


def encoded(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", **options)
    return bytearray(buffer.getvalue())


def frame_head(data):
    """Where the segment of the frame begins."""
    return max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))


def upright(data):
    """4:2:2 to 4:4:0: the same blocks, in units that are taller than wide."""
    at = frame_head(data)
    data[at + 5 : at + 9] = data[at + 7 : at + 9] + data[at + 5 : at + 7]
    assert data[at + 11] == 0x21
    data[at + 11] = 0x12
    return data


def ycck(data):
    """CMYK to YCCK: another meaning of the same numbers."""
    at = data.find(b"Adobe")
    assert data[at + 11] == 0
    data[at + 11] = 2
    return data


def make(rng):
    names = {"4:4:4": "444", "4:2:2": "422", "4:2:0": "420"}
    for subsampling, name in names.items():
        for progressive in [False, True]:
            for width, height in [(35, 21), (16, 16), (2, 9), (1, 1)]:
                image = Image.fromarray(picture(rng, width, height))
                kind = "progressive" if progressive else "baseline"
                options = dict(quality=int(rng.choice([40, 85, 98])), progressive=progressive)
                data = encoded(image, subsampling=subsampling, **options)
                yield f"{name}_{kind}_{width}x{height}", data
                if name == "422" and width > 2:
                    yield f"440_{kind}_{height}x{width}", upright(data)
    image = Image.fromarray(picture(rng, 61, 43))
    yield "restarts", encoded(image, quality=75, restart_marker_blocks=3)
    yield "restarts_progressive", encoded(
        image, quality=75, restart_marker_rows=1, progressive=True
    )
    yield "optimized", encoded(image, quality=30, optimize=True)
    yield "rgb", encoded(image, quality=90, keep_rgb=True)
    gray = Image.fromarray(picture(rng, 29, 34, 1))
    yield "gray", encoded(gray, quality=90)
    yield "gray_progressive", encoded(gray, quality=90, progressive=True)
    inks = image.convert("CMYK")
    yield "cmyk", encoded(inks, quality=90)
    yield "ycck", ycck(encoded(inks, quality=90))
    damaged = encoded(image, quality=75, restart_marker_blocks=3)
    # A missing restart, and a byte in the middle that is not what it was.
    middle = damaged.index(b"\xff\xd1")
    del damaged[middle - 7 : middle + 2]
    damaged[middle + 30] ^= 0x55
    yield "damaged", damaged
    short = encoded(image, quality=75)
    del short[len(short) * 2 // 3 : -2]
    yield "gap", short


def main():
    os.makedirs(HERE, exist_ok=True)
    decoded = {}
    for name, data in make(np.random.default_rng(SEED)):
        with open(os.path.join(HERE, f"{name}.jpg"), "wb") as file:
            file.write(data)
        decoded[name] = np.ascontiguousarray(Image.open(io.BytesIO(data)).convert("RGB"))
    save_file(decoded, os.path.join(HERE, "decoded.safetensors"))


if __name__ == "__main__":
    main()
