"""Item text: one line from several columns, cleaned like the scripts that prepared UniSRec's data."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import Final

MAX_FIELD: Final = 2000  # longer fields are no descriptions but pasted pages: they are blanked
NO_TEXT: Final = "no text: all of its text columns are empty"  # why a new item is refused
_TAGS: Final = re.compile(r"</?\w+[^>]*>")
_BREAKS: Final = re.compile(r"\s*[\n\r]+\s*")

Field = str | int | float | Sequence[str] | None


def clean_field(value: Field) -> str:
    """One field as a sentence that ends in exactly one period; empty where there is nothing to say.

    >>> clean_field('Tom &amp; "Jerry"...')
    'Tom & Jerry.'
    >>> clean_field(["Toys", "Cats"])
    'Toys Cats.'
    """
    parts = value if isinstance(value, list | tuple) else [value]
    words = (_strip(str(part)) for part in parts if part is not None)
    text = " ".join(word for word in words if word).rstrip(". ")
    return f"{text}." if text and len(text) < MAX_FIELD else ""


def item_text(fields: Iterable[Field]) -> str:
    """All fields of an item in order, joined by a space.

    >>> item_text(["Staples", None, "Stanley."])
    'Staples. Stanley.'
    """
    return " ".join(filter(None, map(clean_field, fields)))


def as_text(value: Field) -> str:
    """One field as plain text, without markup; empty where there is nothing.

    >>> as_text(["Toys", None, "Cats"]), as_text(3), as_text(None)
    ('Toys Cats', '3', '')
    """
    parts = value if isinstance(value, list | tuple) else [value]
    return " ".join(filter(None, (_strip(str(part)) for part in parts if part is not None)))


def _strip(text: str) -> str:
    plain = _TAGS.sub("", html.unescape(text)).replace('"', "")
    return _BREAKS.sub(" ", plain).strip()
