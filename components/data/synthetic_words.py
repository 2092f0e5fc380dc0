"""Words of the synthetic world: what items are called, so that a reader (or a text encoder) can tell their taste."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

THEMES: Final[dict[str, tuple[str, ...]]] = {
    "hiking": ("trail", "mountain", "summit", "backcountry", "ridge", "valley", "alpine"),
    "baking": ("sourdough", "pastry", "oven", "dough", "cake", "flour", "yeast"),
    "gardening": ("seedling", "compost", "flower bed", "pruning", "greenhouse", "soil", "herb"),
    "photography": ("lens", "shutter", "portrait", "darkroom", "aperture", "exposure", "camera"),
    "pottery": ("clay", "kiln", "glaze", "wheel throwing", "ceramic", "stoneware", "vase"),
    "astronomy": ("telescope", "galaxy", "planet", "eclipse", "night sky", "constellation", "comet"),
    "cycling": ("bicycle", "pedal", "gravel road", "saddle", "peloton", "spokes", "handlebar"),
    "knitting": ("yarn", "wool", "needle", "sweater", "crochet", "stitch", "mohair"),
    "sailing": ("yacht", "harbor", "regatta", "rigging", "mast", "ocean", "anchor"),
    "chess": ("opening", "endgame", "checkmate", "grandmaster", "gambit", "queen", "pawn"),
    "woodworking": ("chisel", "oak", "dovetail", "lathe", "joinery", "plywood", "carving"),
    "running": ("marathon", "sprint", "jogging", "track", "pace", "half marathon", "stride"),
    "coffee": ("espresso", "roast", "barista", "latte", "beans", "grinder", "brew"),
    "fishing": ("trout", "rod", "lure", "river bank", "fly casting", "salmon", "tackle"),
    "guitar": ("chord", "strings", "fretboard", "riff", "acoustic", "amplifier", "melody"),
    "painting": ("watercolor", "canvas", "brush", "easel", "acrylic", "palette", "landscape"),
}
STYLES: Final[dict[str, tuple[str, ...]]] = {
    "vintage": ("vintage", "antique", "retro", "nostalgic"),
    "minimalist": ("minimalist", "plain", "simple", "understated"),
    "luxury": ("luxurious", "premium", "elegant", "exclusive"),
    "eco": ("sustainable", "recycled", "organic", "eco-friendly"),
    "playful": ("colorful", "playful", "cheerful", "funny"),
    "rugged": ("rugged", "heavy-duty", "robust", "tough"),
}
BRANDS: Final[dict[str, tuple[str, ...]]] = {
    "vintage": ("Old Mill", "Heritage & Sons", "Gramophone"),
    "minimalist": ("Blank", "Nordlys", "One Line"),
    "luxury": ("Maison Doré", "Crown", "Belvedere"),
    "eco": ("Greenleaf", "Second Earth", "Moss"),
    "playful": ("Zigzag", "Confetti", "Lollipop"),
    "rugged": ("Ironside", "Granite", "Bulldog"),
}
LEVELS: Final[tuple[tuple[str, ...], ...]] = (
    ("beginners", "first-timers", "newcomers"),
    ("hobbyists", "regular weekend use", "improvers"),
    ("advanced enthusiasts", "ambitious amateurs", "skilled hands"),
    ("professionals", "experts", "masters"),
)
DOMAINS: Final[dict[str, tuple[str, ...]]] = {
    "gear": ("kit", "set", "tool", "bag", "stand", "case", "outfit", "holder"),
    "books": ("handbook", "guide", "atlas", "memoir", "workbook", "encyclopedia", "novel"),
    "films": ("documentary", "series", "feature film", "short film", "biopic", "reportage"),
    "courses": ("workshop", "online class", "seminar", "boot camp", "tutorial", "masterclass"),
}
NOISE: Final = (
    "Ships within two days.",
    "A popular gift.",
    "Now in its second edition.",
    "Comes with a two year warranty.",
    "Winner of a readers' vote.",
    "Limited stock.",
    "Also available as a bundle.",
    "New this season.",
)


@dataclass(frozen=True)
class ItemText:
    """The text columns of one item; some items lack brand or description."""

    title: str
    category: str
    brand: str | None
    description: str | None


def describe(domain: str, theme: int, level: int, style: int, generator: np.random.Generator) -> ItemText:
    """Write one item's text: its theme, its level and its style each show in some of the words.

    Args:
        domain: a key of `DOMAINS`.
        theme: index into `THEMES`.
        level: index into `LEVELS`.
        style: index into `STYLES`.
        generator: chooses among synonyms.
    """
    theme_name, style_name = list(THEMES)[theme], list(STYLES)[style]
    first, second, third = generator.choice(THEMES[theme_name], size=3, replace=False)
    noun = generator.choice(DOMAINS[domain])
    adjectives = generator.choice(STYLES[style_name], size=2, replace=False)
    audience = generator.choice(LEVELS[level])
    title = f"{adjectives[0].capitalize()} {first} {noun} for {audience}"
    description = f"A {adjectives[1]} {noun} about {second} and {third}. {generator.choice(NOISE)}"
    brand = str(generator.choice(BRANDS[style_name]))
    return ItemText(
        title=title,
        category=f"{domain.capitalize()}, {theme_name.capitalize()}",
        brand=None if generator.random() < 0.05 else brand,
        description=None if generator.random() < 0.03 else description,
    )
