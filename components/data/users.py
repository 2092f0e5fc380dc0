"""The user file -> one row per user of the prepared set, with the file's own columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from components.data.catalog import identified
from components.data.formats import column_names
from components.data.presets import TableFormat, get_preset
from components.data.readers import InputConfig, missing_column
from components.data.sources import Source, find_sources
from components.errors import DataError
from components.schema import USER, USER_ID

_SHOWN: Final = 3  # ids in a message


@dataclass(frozen=True)
class UserFile:
    """A user file that is found and understood, not yet read.

    Attributes:
        sources: its files in order.
        form: how they are written.
        columns: all its columns.
        id_column: which of them holds the ids.
    """

    sources: tuple[Source, ...]
    form: TableFormat
    columns: list[str]
    id_column: str


@dataclass(frozen=True)
class UserTable:
    """What is known about the users of the prepared set.

    Attributes:
        frame: ``user``, ``user_id`` and the file's own columns, null where it lacks the user; in the order of numbers.
        counts: of the user file and of what it lacks, for the manifest.
    """

    frame: pl.DataFrame
    counts: dict[str, int]


def open_users(data: str, config: InputConfig) -> UserFile | None:
    """Find the user file and its columns, None where the input has none; reads headers only.

    Raises:
        DataError: a file or the column of ids is missing.
    """
    if config.users is None:
        return None
    sources = find_sources(data, config.users, "input.users")
    form = get_preset(config.preset).users
    names = column_names(sources[0], form)
    id_column = {**form.columns, **config.user_columns}.get(USER_ID, USER_ID)
    if id_column not in names:
        raise missing_column(USER_ID, id_column, names, sources[0].name, "input.user_columns")
    return UserFile(tuple(sources), form, names, id_column)


def read_users(file: UserFile, users: pl.DataFrame) -> UserTable:
    """Read what the user file says about `users`; a user whom it repeats has the first row.

    Args:
        file: the user file.
        users: ``user`` and ``user_id`` of all users, in the order of numbers; one who has several sequences is there
            once for each.

    Raises:
        DataError: no user of the log is in the file.
    """
    seen, parts = 0, []
    for source in file.sources:
        for batch in identified(source, file.form, file.columns, file.id_column, USER_ID):
            seen += batch.height
            parts.append(batch.drop(USER, strict=False).join(users, on=USER_ID, how="semi"))
    rows = pl.concat(parts, how="vertical_relaxed") if parts else pl.DataFrame(schema={USER_ID: pl.String})
    unique = rows.unique(USER_ID, keep="first", maintain_order=True)
    if unique.is_empty():
        raise _no_common_user(file, users)
    counts = {
        "rows_in_user_file": seen,
        "repeated_rows_in_user_file": rows.height - unique.height,
        "users_missing_from_user_file": users[USER_ID].n_unique() - unique.height,
    }
    return UserTable(users.join(unique, on=USER_ID, how="left", maintain_order="left"), counts)


def _no_common_user(file: UserFile, users: pl.DataFrame) -> DataError:
    shown = ", ".join(map(repr, users[USER_ID].head(_SHOWN)))
    return DataError(
        f"{file.sources[0].name}: column {file.id_column!r} holds none of the log's user ids (such as {shown}); "
        f"map input.user_columns.user_id to another of: {', '.join(file.columns)}"
    )
