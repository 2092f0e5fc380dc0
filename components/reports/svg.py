"""Matplotlib figures as inline SVG whose colors are CSS variables, so that one picture serves light and dark pages."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

NUM_COLORS: Final = 8
INK: Final = "#010101"
MUTED: Final = "#020202"
GRID: Final = "#030303"
COLORS: Final = tuple(f"#0a0b{index:02x}" for index in range(NUM_COLORS))
VARIABLES: Final = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    **{color: f"var(--series-{index})" for index, color in enumerate(COLORS)},
}
# The values of the variables where a picture stands alone; in the report its template sets them.
LIGHT: Final = "#16191d #59616c #dfe3e8 #2a6cb5 #cf6a17 #23856d #8a55b0 #bf3b55 #92701a #0f8297 #7b8594"
DARK: Final = "#e8ebef #a3acb8 #333a43 #6aa9ea #f0994f #57c2a5 #c196e6 #f0849a #d9b556 #55c3d6 #98a2b0"
STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",  # text stays text: smaller, selectable, in the page's own font
    "text.parse_math": False,  # a name may hold a dollar sign
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


@dataclass(frozen=True)
class Picture:
    """One figure of the report.

    Attributes:
        title: its heading.
        caption: what to see in it.
        svg: markup that may stand in HTML as it is.
    """

    title: str
    caption: str
    svg: str


@contextmanager
def style(salt: str) -> Iterator[None]:
    """The look of all figures; `salt` keeps the ids of several pictures on a page apart, and equal in every run."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": salt}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser draws the text, not matplotlib
        yield


def picture(
    title: str, alt: str, draw: Callable[[list[Axes]], None], *, panels: int = 1, height: float = 3.2, caption: str = ""
) -> Picture:
    """Draw a figure of one row of panels.

    Args:
        title: heading; it also salts the ids within the SVG.
        alt: what a person who cannot see the picture is told.
        draw: fills the axes.
        panels: axes side by side.
        height: inches; the width is fixed.
        caption: shown below; `alt` is used where there is none.
    """
    with style(title):
        figure = Figure(figsize=(9.0, height), layout=ConstrainedLayoutEngine(wspace=0.05))
        axes = figure.subplots(1, panels, squeeze=False)[0]
        draw(list(axes))
        return Picture(title, caption or alt, inline(figure, alt))


def inline(figure: Figure, alt: str) -> str:
    """The figure as an ``<svg>`` element: no XML header, no metadata, no name spaces, colors as CSS variables."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    markup = buffer.getvalue()
    markup = markup[markup.index("<svg") :]
    markup = re.sub(r"<metadata>.*?</metadata>", "", markup, flags=re.DOTALL)
    markup = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", markup)
    markup = markup.replace("xlink:href", "href")
    markup = re.sub(r"<style.*?</style>", "", markup, flags=re.DOTALL)  # would style the whole page
    markup = re.sub(r" font-family: [^;\"]*;", "", markup)
    markup = re.sub(r'<g id="[^"]*"', "<g", markup)  # the same in every figure; ids must be unique on a page
    for color, variable in VARIABLES.items():
        markup = markup.replace(color, variable)
    label = html.escape(alt, quote=True)
    return re.sub(
        r'<svg width="[^"]*" height="[^"]*"', f'<svg role="img" aria-label="{label}"', markup, count=1
    ).strip()


def standalone(drawn: Picture) -> str:
    """The picture as the content of an ``.svg`` file, which browsers and GitHub show light or dark."""
    light, dark = (_declarations(colors) for colors in (LIGHT, DARK))
    night = f"@media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}"
    rules = f"svg {{ {light} font-family: system-ui, sans-serif }} {night}"
    head, _, body = drawn.svg.partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{rules}</style>{body}\n'


def _declarations(colors: str) -> str:
    names = (variable.removeprefix("var(").removesuffix(")") for variable in VARIABLES.values())
    return " ".join(f"{name}: {color};" for name, color in zip(names, colors.split(), strict=True))
