"""Presets: how the public data sets that users already have name their columns and separate their fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from components.errors import UnknownNameError
from components.schema import ITEM_ID, RATING, TIMESTAMP, USER_ID

# Text columns that are taken, in this order, where neither the configuration nor a preset names any.
USUAL_TEXT_COLUMNS: Final = (
    "title",
    "category",
    "categories",
    "brand",
    "store",
    "genres",
    "genre",
    "description",
)


@dataclass(frozen=True)
class TableFormat:
    """How one kind of file is written.

    Attributes:
        columns: our column name -> the file's.
        names: the file's column names where it has no header line.
        separator: between fields of a text file; None takes it from the file's extension.
        quoted: whether ``"`` encloses fields.
        encoding: of text files.
        typed_header: whether the header says ``name:type`` (RecBole's atomic files).
    """

    columns: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    names: tuple[str, ...] | None = None
    separator: str | None = None
    quoted: bool = True
    encoding: str = "utf8"
    typed_header: bool = False

    def plain(self, name: str) -> str:
        """The column's name without its type: ``user_id`` for ``user_id:token``."""
        return name.rsplit(":", 1)[0] if self.typed_header else name


@dataclass(frozen=True)
class Preset:
    """The files of a public data set.

    Attributes:
        interactions: format of the log.
        items: format of the item file.
        users: format of the user file.
        text_columns: make the item text, in this order, as far as the file has them.
    """

    interactions: TableFormat = TableFormat()
    items: TableFormat = TableFormat()
    users: TableFormat = TableFormat()
    text_columns: tuple[str, ...] = USUAL_TEXT_COLUMNS


def _columns(user: str, item: str, rating: str, timestamp: str) -> Mapping[str, str]:
    return MappingProxyType({USER_ID: user, ITEM_ID: item, RATING: rating, TIMESTAMP: timestamp})


PLAIN: Final = Preset()
PRESETS: Final[Mapping[str, Preset]] = MappingProxyType(
    {
        "movielens-1m": Preset(
            interactions=TableFormat(names=(USER_ID, ITEM_ID, RATING, TIMESTAMP), separator="::", quoted=False),
            items=TableFormat(names=(ITEM_ID, "title", "genres"), separator="::", quoted=False, encoding="latin-1"),
            users=TableFormat(names=(USER_ID, "gender", "age", "occupation", "zip"), separator="::", quoted=False),
            text_columns=("title", "genres"),
        ),
        "movielens-csv": Preset(
            interactions=TableFormat(_columns("userId", "movieId", "rating", "timestamp")),
            items=TableFormat(MappingProxyType({ITEM_ID: "movieId"})),
            text_columns=("title", "genres"),
        ),
        "amazon-2018": Preset(
            interactions=TableFormat(_columns("reviewerID", "asin", "overall", "unixReviewTime")),
            items=TableFormat(MappingProxyType({ITEM_ID: "asin"})),
            text_columns=("title", "category", "brand"),
        ),
        "amazon-2023": Preset(
            interactions=TableFormat(_columns("user_id", "parent_asin", "rating", "timestamp")),
            items=TableFormat(MappingProxyType({ITEM_ID: "parent_asin"})),
            text_columns=("title", "categories", "store"),
        ),
        "recbole": Preset(
            interactions=TableFormat(quoted=False, typed_header=True),
            items=TableFormat(quoted=False, typed_header=True),
            users=TableFormat(quoted=False, typed_header=True),
            text_columns=("title", "movie_title", "categories", "category", "class", "genre", "genres", "brand"),
        ),
    }
)


def get_preset(name: str | None) -> Preset:
    """The preset called `name`; the plain one, which renames nothing, for None.

    Raises:
        UnknownNameError: no preset has this name.
    """
    if name is None:
        return PLAIN
    if name not in PRESETS:
        raise UnknownNameError("preset", name, PRESETS)
    return PRESETS[name]
