"""A teacher that was trained elsewhere: two arrays from the user, checked, and taken as they are."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from components.data.flat_sequences import Sequences
from components.data.prepared import PreparedSet
from components.errors import ArtifactError, DataError
from components.schema import ITEM_ID, MODEL_FILE, POSITION, USER_ID

EXTERNAL: Final = "external"
VECTOR: Final = "vector"  # the column of a Parquet file, the array of an .npz, that holds the vectors
HALF_MAX: Final = float(np.finfo(np.float16).max)

FloatTable = NDArray[np.float32]


class ExternalConfig(BaseModel):
    """Where the two arrays of an external teacher lie.

    Each file is ``.npy`` (rows in our order), ``.npz`` or ``.parquet`` (``vector`` beside the keys, any order). Items
    are keyed by ``item_id``, states by ``user_id`` and ``position``: the place, from 0, of the history's last item
    among the user's items. The state at position t saw items 0..t and is used to predict item t + 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    items: str = Field(description="file of item vectors: keyed by item_id, or (N + 1, d) with row 0 for padding")
    states: str = Field(description="file of states: keyed by user_id and position, or one row per training instance")
    strength: float | None = Field(None, gt=0, description="its weight among teachers; null: its validation metric")


@dataclass(frozen=True)
class ExternalTeacher:
    """What annotation needs of a teacher.

    Attributes:
        items: (N + 1, d) item vectors, row 0 (PAD) zero.
        states: (instances, d) one state per training instance, in the order of `Sequences.instance_offsets`.
        valid_states: (C, d) states of ``sequences.cases("valid")``, where the file of states has them; else None.
    """

    items: FloatTable
    states: FloatTable
    valid_states: FloatTable | None = None

    def save(self, folder: Path) -> None:
        """Write the arrays as ``model.safetensors`` into an existing folder."""
        arrays = {"items": self.items, "states": self.states}
        if self.valid_states is not None:
            arrays["valid_states"] = self.valid_states
        save_file(arrays, folder / MODEL_FILE)

    @classmethod
    def load(cls, folder: Path) -> ExternalTeacher:
        """Read what `save` wrote.

        Raises:
            ArtifactError: the file is missing or damaged.
        """
        try:
            return cls(**load_file(folder / MODEL_FILE))
        except (OSError, SafetensorError, TypeError) as error:
            raise ArtifactError(f"{folder / MODEL_FILE}: missing or damaged ({error}); run `teach` again") from error


def load_external(config: ExternalConfig, prepared: PreparedSet, root: Path | None = None) -> ExternalTeacher:
    """Read and check both arrays of an external teacher.

    Args:
        config: where they lie.
        prepared: the set that is to be annotated.
        root: folder that relative paths start from; the current one when None.

    Raises:
        DataError: a file is missing or unreadable, has another shape or type, lacks rows, or holds NaN or infinity.
    """
    base = root or Path()
    items = read_items(base / config.items, prepared.item_ids)
    states, valid_states = read_states(base / config.states, prepared)
    if items.shape[1] != states.shape[1]:
        raise DataError(
            f"{config.items} has vectors of width {items.shape[1]}, {config.states} of width {states.shape[1]}; "
            "a score is their dot product, so both need the same width"
        )
    return ExternalTeacher(items, states, valid_states)


def read_items(path: Path, item_ids: Sequence[str]) -> FloatTable:
    """(N + 1, d) item vectors in the order of item numbers, row 0 zero.

    Raises:
        DataError: see `load_external`.
    """
    vectors, keys = _read(path, (ITEM_ID,))
    if keys is None:
        _expect_rows(path, vectors, len(item_ids) + 1, "items + 1 (row 0 for padding, then items by number)")
        table = vectors.copy()
    else:
        wanted = pl.DataFrame({ITEM_ID: item_ids}, schema={ITEM_ID: pl.String})
        rows = _rows_of(path, keys, wanted, "items of the prepared set")
        table = np.concatenate([np.zeros((1, vectors.shape[1]), np.float32), vectors[rows]])
    table[0] = 0.0
    return table


def read_states(path: Path, prepared: PreparedSet) -> tuple[FloatTable, FloatTable | None]:
    """(instances, d) states in instance order, and those of the validation cases where a keyed file has them all.

    Raises:
        DataError: see `load_external`.
    """
    sequences = prepared.sequences
    vectors, keys = _read(path, (USER_ID, POSITION))
    if keys is None:
        _expect_rows(path, vectors, sequences.num_instances, "training instances of the prepared set")
        return vectors, None
    users = np.asarray(prepared.user_ids, dtype=object)
    if len(set(prepared.user_ids)) < len(users):
        raise DataError(
            f"{path}: rows named by user_id and position do not tell the {len(users):,} sequences of "
            f"{len(set(prepared.user_ids)):,} users apart, because prepare.chunk_length cuts histories; give states in "
            "instance order, without these columns"
        )
    rows = _rows_of(path, keys, _instance_keys(sequences, users), "training instances of the prepared set")
    cases = sequences.cases("valid")
    valid = _find(keys, _keys(users[cases.rows], cases.lengths - 1))
    return vectors[rows], None if (valid < 0).any() else vectors[valid]


def _instance_keys(sequences: Sequences, users: NDArray[np.object_]) -> pl.DataFrame:
    """(user_id, position) of every training instance, in instance order."""
    counts = np.diff(sequences.instance_offsets)
    owners = np.repeat(np.arange(len(counts)), counts)
    positions = np.arange(sequences.num_instances) - sequences.instance_offsets[owners]
    return _keys(users[owners], positions)


def _keys(users: NDArray[np.object_], positions: NDArray[np.int64]) -> pl.DataFrame:
    return pl.DataFrame({USER_ID: pl.Series(users.tolist(), dtype=pl.String), POSITION: positions})


def _rows_of(path: Path, keys: pl.DataFrame, wanted: pl.DataFrame, what: str) -> NDArray[np.int64]:
    """The row of `keys` that holds each row of `wanted`."""
    twice = keys.is_duplicated()
    if twice.any():
        raise DataError(
            f"{path}: {int(twice.sum())} rows share a key with another, such as {_show(keys.filter(twice))}"
        )
    rows = _find(keys, wanted)
    missing = rows < 0
    if missing.any():
        example = _show(wanted.filter(pl.Series(missing)))
        raise DataError(f"{path}: {int(missing.sum())} of {len(rows)} {what} have no row, such as {example}")
    return rows


def _find(keys: pl.DataFrame, wanted: pl.DataFrame) -> NDArray[np.int64]:
    """(len(wanted),) row of `keys` with the same values, -1 where there is none."""
    found = wanted.join(keys.with_row_index("row"), on=wanted.columns, how="left", maintain_order="left")
    return found["row"].cast(pl.Int64).fill_null(-1).to_numpy()


def _show(keys: pl.DataFrame) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in keys.row(0, named=True).items())


def _expect_rows(path: Path, vectors: FloatTable, expected: int, what: str) -> None:
    if len(vectors) != expected:
        raise DataError(f"{path}: {len(vectors)} rows, expected {expected}: one per {what}")


def _read(path: Path, key_names: tuple[str, ...]) -> tuple[FloatTable, pl.DataFrame | None]:
    """The vectors of a file, checked, and their keys, or None where the file has none."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; an external teacher needs a file of items and one of states")
    readers = {".npy": _read_npy, ".npz": _read_npz, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise DataError(f"{path}: cannot read {path.suffix!r}; expected one of {', '.join(readers)}")
    try:
        vectors, keys = readers[path.suffix](path, key_names)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: damaged, or no {path.suffix} file of plain numbers ({error})") from error
    return _checked(path, vectors), None if keys is None else _typed(path, keys, len(vectors))


def _read_npy(path: Path, key_names: tuple[str, ...]) -> tuple[NDArray[np.generic], pl.DataFrame | None]:
    return np.load(path, allow_pickle=False), None


def _read_npz(path: Path, key_names: tuple[str, ...]) -> tuple[NDArray[np.generic], pl.DataFrame | None]:
    with np.load(path, allow_pickle=False) as arrays:
        _expect_names(path, arrays.files, key_names)
        keys = {name: arrays[name] for name in key_names if name in arrays.files}
        return arrays[VECTOR], pl.DataFrame({name: value.tolist() for name, value in keys.items()}) if keys else None


def _read_parquet(path: Path, key_names: tuple[str, ...]) -> tuple[NDArray[np.generic], pl.DataFrame | None]:
    table = pl.read_parquet(path)
    _expect_names(path, table.columns, key_names)
    lists = table[VECTOR]
    if lists.dtype != pl.List(pl.Float64):
        lists = lists.cast(pl.List(pl.Float32))
    width = lists.list.len()
    if lists.null_count() or width.n_unique() > 1:
        raise DataError(f"{path}: column {VECTOR!r} must hold a list of the same length in every row")
    vectors = lists.explode().to_numpy().reshape(len(table), -1)
    return vectors, table.select(key_names) if set(key_names) <= set(table.columns) else None


def _expect_names(path: Path, names: Sequence[str], key_names: tuple[str, ...]) -> None:
    found = [name for name in key_names if name in names]
    if VECTOR not in names or found not in ([], list(key_names)):
        raise DataError(
            f"{path}: holds {', '.join(names) or 'nothing'}; expected {VECTOR!r} and the keys {', '.join(key_names)}"
        )


def _typed(path: Path, keys: pl.DataFrame, rows: int) -> pl.DataFrame:
    """Keys as strings and int64, as the prepared set has them."""
    if keys.height != rows:
        raise DataError(f"{path}: {keys.height} keys for {rows} vectors")
    types = {name: pl.Int64 if name == POSITION else pl.String for name in keys.columns}
    try:
        return keys.cast(types)  # type: ignore[arg-type]
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: keys must be texts, and {POSITION} whole numbers ({error})") from error


def _checked(path: Path, vectors: NDArray[np.generic]) -> FloatTable:
    """Two-dimensional, floating, finite, within fp16 (in which annotations are stored)."""
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise DataError(f"{path}: shape {vectors.shape}, expected a table (rows, width)")
    if not np.issubdtype(vectors.dtype, np.floating):
        raise DataError(f"{path}: type {vectors.dtype}, expected float16, float32 or float64")
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        raise DataError(f"{path}: NaN or infinity in {int(bad.sum())} rows, the first is row {int(bad.argmax())}")
    table = vectors.astype(np.float32)
    largest = float(np.abs(table).max())
    if largest > HALF_MAX:
        raise DataError(
            f"{path}: holds {largest:g}; vectors are stored in 16 bits, the largest value there is {HALF_MAX:g}"
        )
    return table
