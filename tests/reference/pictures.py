"""Small seeded pictures in every format and color mode that is read."""

import io
import json
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, ImageOps
from safetensors.numpy import save_file

# Decoders of these agree on every byte; the inverse transforms of the others differ in rounding.
LOSSLESS = {".png", ".gif", ".bmp", ".tiff"}


def noise(rng, width, height, channels, strength=1.0):
    """A gradient with noise on it, `[height, width, channels]`; strength 1 is strong."""
    y, x, c = np.mgrid[0:height, 0:width, 0:channels]
    ramp = 128 + 90 * np.sin(x / width * 5 + c * 1.3) * np.cos(y / height * 4 - c)
    return np.clip(ramp + strength * rng.normal(0, 40, ramp.shape), 0, 255).astype(np.uint8)


def png_of(width, height, color_type, rows):
    """A 16-bit PNG, which Pillow reads but cannot write in color; `rows` are big-endian bytes."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def files(seed):
    """Name to bytes."""
    rng = np.random.default_rng(seed)
    made = {}

    def save(name, image, **options):
        buffer = io.BytesIO()
        image.save(buffer, **({"format": name.rsplit(".")[-1].replace("jpg", "jpeg")} | options))
        made[name] = buffer.getvalue()

    def rgb(width, height, strength=1.0):
        return Image.fromarray(noise(rng, width, height, 3, strength))

    save("wide.png", rgb(61, 23))
    save("tall.png", rgb(23, 61))
    save("tiny.png", rgb(9, 7))
    save("square.png", rgb(32, 32))
    save("thread.png", rgb(150, 2))
    save("gray.png", Image.fromarray(noise(rng, 40, 31, 1)[..., 0]))
    save("gray_alpha.png", Image.fromarray(noise(rng, 27, 44, 2), "LA"))
    save("one_bit.png", Image.fromarray(noise(rng, 45, 33, 1)[..., 0] > 120))
    # Values on both sides of 255, where Pillow clips.
    save("gray_16_bit.png", Image.fromarray(noise(rng, 37, 29, 1)[..., 0].astype(np.uint16) * 2))
    save("alpha.png", Image.fromarray(noise(rng, 52, 30, 4)))
    save("palette.png", rgb(41, 26).quantize(23))
    transparent = rgb(33, 38).quantize(17)
    save("palette_alpha.png", transparent, transparency=bytes(range(0, 255, 15)))
    rows = noise(rng, 30 * 2, 25, 3).reshape(25, 30, 6)
    made["rgb_16_bit.png"] = png_of(30, 25, 2, [row.tobytes() for row in rows])
    rows = noise(rng, 26 * 2, 33, 4).reshape(33, 26, 8)
    made["alpha_16_bit.png"] = png_of(26, 33, 6, [row.tobytes() for row in rows])
    first, second = rgb(48, 36).quantize(31), rgb(48, 36).quantize(31)
    save("animated.gif", first, save_all=True, append_images=[second], duration=50)
    hole = rgb(34, 40).quantize(15)
    save("hole.gif", hole, transparency=3)
    save("wide.bmp", rgb(43, 19))
    save("gray.bmp", Image.fromarray(noise(rng, 21, 35, 1)[..., 0]))
    save("tall.tiff", rgb(20, 39))
    save("deflated.tiff", rgb(39, 28), compression="tiff_adobe_deflate")
    save("exact.webp", rgb(44, 32), lossless=True)
    save("exact_alpha.webp", Image.fromarray(noise(rng, 30, 41, 4)), lossless=True, exact=True)
    save("lossy.webp", rgb(64, 40, 0.1), quality=90)
    save("photo.jpg", rgb(72, 48, 0.1), quality=90)
    save("full_chroma.jpg", rgb(47, 62, 0.1), quality=92, subsampling=0)
    save("progressive.jpg", rgb(57, 43, 0.1), quality=90, progressive=True)
    save("gray.jpg", Image.fromarray(noise(rng, 50, 34, 1, 0.1)[..., 0]), quality=90)
    save("cmyk.jpg", rgb(36, 45, 0.1).convert("CMYK"), quality=92, subsampling=0)
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        # The quarter turns are the common ones.
        width = 53 if orientation == 6 else 21
        save(f"turned_{orientation}.jpg", rgb(width, 29, 0.1), quality=90, subsampling=0, exif=exif)
    return made


def decoded(data):
    """The RGB bytes that a careful user of Pillow gets, `[height, width, 3]`."""
    image = Image.open(io.BytesIO(data))
    with warnings.catch_warnings():
        # Pillow would rather have a palette with alpha become RGBA first; it ends in the same.
        warnings.simplefilter("ignore")
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def write(folder, seed):
    """Writes the pictures, their decoded bytes and a list; returns name to decoded bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    made = files(seed)
    arrays = {}
    for name, data in made.items():
        (folder / name).write_bytes(data)
        arrays[name] = np.ascontiguousarray(decoded(data))
    save_file(arrays, folder / "decoded.safetensors")
    exact = [n for n in made if n[n.rindex(".") :] in LOSSLESS or n.startswith("exact")]
    listing = {"all": list(made), "exact": exact}
    (folder / "list.json").write_text(json.dumps(listing, indent=1) + "\n")
    return arrays
