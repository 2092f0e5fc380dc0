from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.features.pictures import DAMAGED, MISSING, NO_PICTURE, TOO_LARGE, UnusablePictureError, decode

PIXELS = np.random.default_rng(0).integers(0, 255, size=(40, 30, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


def reason(content: bytes | None, max_pixels: int = 10_000) -> str:
    with pytest.raises(UnusablePictureError) as caught:
        decode(content, max_pixels=max_pixels)
    return caught.value.reason


def outcome(content: bytes) -> str:
    """The mode of the decoded picture, or the reason why there is none."""
    try:
        return decode(content, max_pixels=1_000_000).mode
    except UnusablePictureError as error:
        return error.reason


def huge_png(side: int) -> bytes:
    """A few bytes that claim to be a picture of side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_usual_formats_become_rgb(kind: str) -> None:
    image = decode(encoded(Image.fromarray(PIXELS), kind), max_pixels=10_000)
    assert image.mode == "RGB"
    assert image.size == (30, 40)


@pytest.mark.parametrize(("mode", "kind"), [("CMYK", "JPEG"), ("L", "JPEG"), ("P", "PNG"), ("1", "PNG"), ("LA", "PNG")])
def test_other_color_modes_become_rgb(mode: str, kind: str) -> None:
    content = encoded(Image.fromarray(PIXELS).convert(mode), kind)
    assert decode(content, max_pixels=10_000).mode == "RGB"


def test_sixteen_bits_are_scaled_and_not_cut() -> None:
    gray = Image.fromarray(np.linspace(0, 65535, 1200, dtype=np.uint16).reshape(40, 30))
    found = np.asarray(decode(encoded(gray, "PNG"), max_pixels=10_000))[..., 0]
    assert found.min() < 5
    assert found.max() > 250
    assert 100 < found.mean() < 155


def test_transparent_parts_are_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert decode(encoded(clear, "PNG"), max_pixels=100).getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    red, _, blue = decode(content, max_pixels=1000).getpixel((3, 3))  # type: ignore[misc]
    assert red > 200 > 50 > blue


def test_a_photo_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    assert decode(encoded(Image.fromarray(PIXELS), "JPEG", exif=exif), max_pixels=10_000).size == (40, 30)


@pytest.mark.parametrize("content", [None, b""])
def test_nothing_is_missing(content: bytes | None) -> None:
    assert reason(content) == MISSING


@pytest.mark.parametrize(
    "content", [b"<html>404</html>", b"\0" * 500, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\xff\xd8\xff"]
)
def test_other_bytes_are_no_picture(content: bytes) -> None:
    assert reason(content) == NO_PICTURE


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_truncated_pictures(kind: str) -> None:
    content = encoded(Image.fromarray(PIXELS), kind)
    assert reason(content[: len(content) // 2]) in (DAMAGED, NO_PICTURE)


def test_a_picture_with_a_flipped_byte_is_read_or_refused_but_never_crashes() -> None:
    generator = np.random.default_rng(1)
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        content = encoded(Image.fromarray(PIXELS), kind)
        for _ in range(60):
            broken = bytearray(content)
            broken[int(generator.integers(len(broken)))] ^= int(generator.integers(1, 256))
            assert outcome(bytes(broken)) in ("RGB", DAMAGED, NO_PICTURE, TOO_LARGE)


@pytest.mark.parametrize("side", [2_000, 12_000, 30_000])
def test_bombs_are_refused_before_they_are_decoded(side: int) -> None:
    assert reason(huge_png(side), max_pixels=1_000_000) == TOO_LARGE


def test_a_large_photo_is_decoded_at_a_fraction() -> None:
    photo = encoded(Image.fromarray(np.zeros((1024, 1024, 3), np.uint8)), "JPEG")
    assert decode(photo, max_pixels=2**21, side=128).size == (128, 128)
    assert reason(photo, max_pixels=2**19) == TOO_LARGE
