"""AVIF files of many kinds under data/avif, and the samples that Pillow decodes from them.

    python avif.py

Needs the numpy, pillow and safetensors of requirements.txt, and `avifenc` (Debian: libavif-bin) for
what Pillow does not write: more than 8 bits, other matrices, turns without EXIF, grids.
"""

import io
import os
import subprocess
import tempfile

import numpy as np
from PIL import Image, ImageOps
from safetensors.numpy import save_file

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "avif")
# Sides that no block divides, and odd, so that chroma reaches beyond the edge.
WIDTH, HEIGHT = 45, 31


def picture(alpha=False, width=WIDTH, height=HEIGHT):
    """Waves, gradients and two rectangles; alpha from corner to corner."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    values = np.stack(
        [128 + 120 * np.sin(x / 7) * np.cos(y / 9), 255 * x / width, 255 * y / height], -1
    )
    values[height // 3 : height // 2, width // 4 : width // 2] = 250, 20, 30
    values[height // 2 : height * 3 // 4, width // 2 : width * 3 // 4] = 10, 200, 240
    if alpha:
        values = np.dstack([values, 255 * (x + y) / (width + height - 2)])
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def pillow(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "avif", quality=60, speed=4, **options)
    return buffer.getvalue()


def avifenc(image, *options):
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "a.png"), os.path.join(folder, "a.avif")
        image.save(source)
        quality = ["--speed", "4", "--min", "10", "--max", "20"]
        command = ["avifenc", *quality, *options, source, target]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        with open(target, "rb") as file:
            return file.read()


def upright(orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    return exif.tobytes()


def make():
    image, clear = picture(), picture(alpha=True)
    for name in ["400", "420", "422", "444"]:
        for range_ in ["full", "limited"]:
            yield f"{name}_8_{range_}", pillow(image, subsampling=":".join(name), range=range_)
            for bits in ["10", "12"]:
                options = ["--depth", bits, "--yuv", name, "--range", range_]
                yield f"{name}_{bits}_{range_}", avifenc(image, *options)
    yield "alpha_8", pillow(clear)
    yield "alpha_8_limited", pillow(clear, range="limited", subsampling="4:4:4")
    yield "alpha_8_premultiplied", pillow(clear, alpha_premultiplied=True)
    yield "alpha_10", avifenc(clear, "--depth", "10", "--yuv", "420")
    yield "alpha_12", avifenc(clear, "--depth", "12", "--yuv", "422")
    yield "alpha_gray", pillow(clear, subsampling="4:0:0")
    matrices = {"identity": "1/13/0", "bt709": "1/13/1", "bt601": "1/13/6", "bt2020": "9/16/9"}
    for name, numbers in {**matrices, "unspecified": "2/2/2"}.items():
        for range_ in ["full", "limited"]:
            options = ["--cicp", numbers, "--range", range_, "--yuv", "444"]
            yield f"{name}_{range_}", avifenc(image, *options)
    yield "identity_10", avifenc(image, "--cicp", "1/13/0", "--depth", "10", "--yuv", "444")
    yield "bt2020_10", avifenc(image, "--cicp", "9/16/9", "--depth", "10", "--yuv", "420")
    small = picture(width=24, height=16)
    for orientation in range(2, 9):
        yield f"turned_{orientation}", pillow(small, exif=upright(orientation))
    # The mirror comes after the turn.
    for turns in "123":
        for axis in "01":
            options = ["--irot", turns, "--imir", axis]
            yield f"irot_{turns}_imir_{axis}", avifenc(small, *options)
    yield "one_pixel", pillow(picture(width=1, height=1))


def main():
    os.makedirs(HERE, exist_ok=True)
    decoded = {}
    for name, data in make():
        assert len(data) < 2048, name
        with open(os.path.join(HERE, f"{name}.avif"), "wb") as file:
            file.write(data)
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        decoded[name] = np.ascontiguousarray(image.convert("RGBA" if "A" in image.mode else "RGB"))
    save_file(decoded, os.path.join(HERE, "decoded.safetensors"))
    # What is refused: two times two pictures as one, and what is large, as soon as its boxes lie.
    grid = avifenc(picture(width=128, height=128), "--grid", "2x2")
    large = io.BytesIO()
    Image.new("RGB", (10_000, 10_000), (200, 10, 50)).save(large, "avif", speed=9)
    for name, data in [("grid", grid), ("large", large.getvalue())]:
        with open(os.path.join(HERE, name), "wb") as file:
            file.write(data)


if __name__ == "__main__":
    main()
