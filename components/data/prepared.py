"""The prepared set as it is read from its folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.data.flat_sequences import IntArray, Sequences
from components.data.item_text import as_text
from components.errors import ArtifactError
from components.schema import (
    COUNT,
    ITEM_ID,
    ITEMS,
    ITEMS_FILE,
    MANIFEST_FILE,
    PAD,
    RATINGS,
    SCHEMA_VERSION,
    SEQUENCES_FOLDER,
    STATE_PREFIX,
    TEXT,
    TIMESTAMPS,
    TRAIN_END,
    USER,
    USER_ID,
    USERS_FILE,
    VALID_END,
    VALID_STATE_PREFIX,
)

if TYPE_CHECKING:
    import polars as pl


class PreparedSet:
    """A prepared set on disk.

    Args:
        path: the folder that stage ``prepare`` (or ``annotate``) wrote.

    Raises:
        ArtifactError: the folder is incomplete or of another schema version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._states: dict[str, NDArray[np.float16]] = {}
        manifest = self.path / MANIFEST_FILE
        if not manifest.is_file():
            raise ArtifactError(
                f"{manifest}: missing; the folder is no finished prepared set, run `distilrec prepare` again"
            )
        self.manifest: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
        version = self.manifest.get("schema_version")
        if version != SCHEMA_VERSION:
            raise ArtifactError(f"{manifest}: schema version {version!r}, this program reads {SCHEMA_VERSION}")

    @cached_property
    def items(self) -> pl.DataFrame:
        """The catalogue in the order of item numbers: item, item_id, count, text and the user's own columns."""
        import polars as pl  # here: a training worker needs neither texts and images nor the memory of polars

        return pl.read_parquet(self.path / ITEMS_FILE)

    @cached_property
    def num_items(self) -> int:
        """Number of items N; item numbers are 1..N."""
        return int(pq.read_metadata(self.path / ITEMS_FILE).num_rows)

    @cached_property
    def item_ids(self) -> list[str]:
        """The users' item ids; entry ``i`` belongs to item number ``i + 1``."""
        ids: list[str] = self.items[ITEM_ID].to_list()
        return ids

    @cached_property
    def texts(self) -> list[str]:
        """One text per item, empty where the item file has none."""
        if TEXT not in self.items.columns:
            return [""] * self.num_items
        texts: list[str] = self.items[TEXT].fill_null("").to_list()
        return texts

    @property
    def text_columns(self) -> list[str]:
        """The columns of ``input.text_columns`` that the item file has; one text of all where it named none.

        Sets that were annotated by an early version did not say which they are: there all texts count.
        """
        schema = pq.read_schema(self.path / ITEMS_FILE)
        texts = [
            field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        ]
        known = self.manifest["items"].get("text_columns") if "items" in self.manifest else texts
        chosen = [name for name in known or () if name in schema.names and name not in (ITEM_ID, TEXT)]
        return chosen or [name for name in (TEXT,) if name in schema.names]

    @cached_property
    def attributes(self) -> dict[str, list[str]]:
        """One text per item, ``""`` where it has none, by text column, in the order of ``input.text_columns``."""
        table = pq.read_table(self.path / ITEMS_FILE, columns=self.text_columns)
        return {name: [as_text(value) for value in table[name].to_pylist()] for name in table.column_names}

    @cached_property
    def user_attributes(self) -> dict[str, list[str]]:
        """One text per user, ``""`` where the user file says nothing, by its columns; row ``i`` is user ``i + 1``.

        Empty where the input had no user file.
        """
        if not (self.path / USERS_FILE).is_file():
            return {}
        table = pq.read_table(self.path / USERS_FILE).drop_columns([USER, USER_ID])
        return {name: [as_text(value) for value in table[name].to_pylist()] for name in table.column_names}

    @cached_property
    def counts(self) -> IntArray:
        """(N + 1,) training interactions per item number; entry 0 (padding) is 0."""
        counts = pq.read_table(self.path / ITEMS_FILE, columns=[COUNT])[COUNT].to_numpy()
        return np.concatenate([[PAD], counts.astype(np.int64)])

    @property
    def sequence_files(self) -> list[Path]:
        """The Parquet files of the sequences in their order."""
        return sorted((self.path / SEQUENCES_FOLDER).glob("*.parquet"))

    @cached_property
    def sequences(self) -> Sequences:
        """All sequences in memory, flat."""
        return read_sequences(self._table([USER, ITEMS, TIMESTAMPS, TRAIN_END, VALID_END]))

    @cached_property
    def ratings(self) -> NDArray[np.float32] | None:
        """(I,) ratings in the order of ``sequences.items``, or None."""
        ratings: NDArray[np.float32] | None = _flat_or_none(self._table([RATINGS])[RATINGS])
        return ratings

    @cached_property
    def user_ids(self) -> list[str]:
        """The users' own ids in the order of the sequences."""
        ids: list[str] = self._table([USER_ID])[USER_ID].to_pylist()
        return ids

    @property
    def teachers(self) -> list[str]:
        """Names of the teachers whose states the sequences carry; empty before stage ``annotate``."""
        files = self.sequence_files
        names = pq.read_schema(files[0]).names if files else []
        return [name.removeprefix(STATE_PREFIX) for name in names if name.startswith(STATE_PREFIX)]

    def hold(self, teachers: Sequence[str]) -> int:
        """Read what trainings need into memory, the states of `teachers` too; returns its bytes.

        Several processes may then share one copy of the object.
        """
        self._states = {name: self.states(name) for name in teachers}
        sequences, counts = self.sequences, self.counts
        held: list[NDArray[Any]] = [sequences.users, sequences.offsets, sequences.items, counts]
        held += [sequences.train_end, sequences.valid_end, *self._states.values()]
        held += [] if sequences.timestamps is None else [sequences.timestamps]
        return sum(array.nbytes for array in held) + 8 * self.num_items

    def states(self, teacher: str) -> NDArray[np.float16]:
        """(instances, d_k) states of one teacher, row by training instance."""
        if teacher in self._states:
            return self._states[teacher]
        column = f"{STATE_PREFIX}{teacher}"
        flat = self._table([column])[column].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        states: NDArray[np.float16] = flat.reshape(self.sequences.num_instances, -1)
        return states

    def valid_states(self, teacher: str) -> NDArray[np.float16] | None:
        """(C, d_k) states of one teacher at ``sequences.cases("valid")``; None where they are unknown.

        A teacher from files may bring none, and sets that were annotated by an early version hold none.
        """
        column = f"{VALID_STATE_PREFIX}{teacher}"
        if any(column not in pq.read_schema(file).names for file in self.sequence_files):
            return None
        flat = self._table([column])[column].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        cases = len(self.sequences.cases("valid"))
        states: NDArray[np.float16] = flat.reshape(cases, -1 if cases else 0)
        return states

    def _table(self, columns: list[str]) -> pa.Table:
        tables = [pq.read_table(file, columns=columns) for file in self.sequence_files]
        if not tables:
            raise ArtifactError(f"{self.path / SEQUENCES_FOLDER}: no sequence files; run `distilrec prepare` again")
        return pa.concat_tables(tables).combine_chunks()


def read_sequences(table: pa.Table) -> Sequences:
    """Sequences of a table with the columns of ``sequences/*.parquet``; `timestamps` may be absent."""
    items = table[ITEMS].combine_chunks()
    times = table[TIMESTAMPS] if TIMESTAMPS in table.column_names else None
    return Sequences(
        users=table[USER].to_numpy(),
        offsets=_offsets(items),
        items=items.flatten().to_numpy(zero_copy_only=False).astype(np.int32, copy=False),
        train_end=table[TRAIN_END].to_numpy(),
        valid_end=table[VALID_END].to_numpy(),
        timestamps=None if times is None else _flat_or_none(times),
    )


def _offsets(lists: pa.Array) -> IntArray:
    chunk = lists.chunk(0) if isinstance(lists, pa.ChunkedArray) else lists
    offsets: IntArray = chunk.offsets.to_numpy().astype(np.int64)
    shifted: IntArray = offsets - offsets[0]
    return shifted


def _flat_or_none(column: pa.ChunkedArray) -> Any:
    if column.null_count == len(column):
        return None
    return column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
