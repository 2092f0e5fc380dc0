"""Pictures of the synthetic world: the color tells the theme, the pattern the style; the level cannot be seen."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE: Final = 32  # pixels
Pixels = NDArray[np.uint8]


def draw(theme: int, num_themes: int, style: int, generator: np.random.Generator) -> Pixels:
    """(SIZE, SIZE, 3) one item's picture, somewhat different for every item of a kind.

    Args:
        theme: decides the hue.
        num_themes: hues are spread evenly over so many themes.
        style: decides the pattern.
        generator: varies hue, phase and grain.
    """
    hue = (theme + generator.normal(0, 0.15)) / num_themes
    bright = np.array(colorsys.hsv_to_rgb(hue % 1.0, 0.75, 0.95))
    dark = np.array(colorsys.hsv_to_rgb(hue % 1.0, 0.85, 0.45))
    share = _pattern(style, generator.uniform(0, SIZE))[..., None]  # (SIZE, SIZE, 1)
    colors = share * bright + (1.0 - share) * dark
    noisy = colors + generator.normal(0, 0.04, colors.shape)
    pixels: Pixels = np.round(np.clip(noisy, 0, 1) * 15).astype(np.uint8) * 17  # 16 shades keep the file small
    return pixels


def _pattern(style: int, phase: float) -> NDArray[np.float64]:
    """(SIZE, SIZE) share of the bright color: stripes, bars, diagonals, checks, rings or a disk."""
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)
    radius = np.hypot(x - SIZE / 2, y - SIZE / 2)
    kind = style % 6
    if kind == 3:
        share = (np.floor((x + phase) / 8) + np.floor((y + phase) / 8)) % 2
    elif kind == 5:
        share = radius < SIZE / 3 + phase / 8
    else:
        share = np.sin({0: y, 1: x, 2: x + y, 4: radius * 1.5}[kind] * np.pi / 4 + phase) > 0
    return np.asarray(share, dtype=np.float64)


def save(pixels: Pixels, path: Path) -> None:
    """Write a PNG; the same pixels give the same bytes."""
    Image.fromarray(pixels).save(path, format="PNG", compress_level=6)
