"""Bytes of unknown origin -> a small RGB picture, or the reason why there is none."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import Final

from PIL import Image, ImageOps

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # those that start no other program
MISSING: Final = "missing"
NO_PICTURE: Final = "not a picture"
TOO_LARGE: Final = "too large"
DAMAGED: Final = "damaged"
_BROKEN: Final = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    ArithmeticError,
    NotImplementedError,
    MemoryError,
    struct.error,
    zlib.error,
)  # what Pillow's decoders raise on bytes that they did not expect


class UnusablePictureError(Exception):
    """The bytes give no picture; `reason` is one of the constants above."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode(content: bytes | None, *, max_pixels: int, side: int | None = None) -> Image.Image:
    """The first frame of an encoded picture in RGB, turned upright, transparent parts white.

    Args:
        content: encoded bytes of one of `FORMATS`.
        max_pixels: larger pictures are refused before they are decoded.
        side: the caller needs no more than about so many pixels a side; JPEGs are then decoded at a fraction.

    Raises:
        UnusablePictureError: there is no content, or it is no picture, damaged, truncated, or too large.
    """
    if not content:
        raise UnusablePictureError(MISSING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large pictures, which are refused below, and of odd metadata
        try:
            image = Image.open(io.BytesIO(content), formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise UnusablePictureError(TOO_LARGE) from error
        except _BROKEN as error:
            raise UnusablePictureError(NO_PICTURE) from error
        width, height = image.size
        if width * height > max_pixels:
            raise UnusablePictureError(TOO_LARGE)
        try:
            if side is not None:
                image.draft("RGB", (side, side))
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
        except _BROKEN as error:
            raise UnusablePictureError(DAMAGED) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # 16 bits and more: Pillow's own conversion cuts instead of scaling
        low, high = _extrema(image)
        scale = 255.0 / max(high - low, 1e-12)
        return image.convert("F").point(lambda value: value * scale - low * scale).convert("L").convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("RGB")
    return image.convert("RGB")


def _extrema(image: Image.Image) -> tuple[float, float]:
    low, high = image.convert("F").getextrema()
    return float(low), float(high)  # type: ignore[arg-type]
