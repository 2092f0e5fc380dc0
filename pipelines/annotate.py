"""Stage ``annotate``: teacher states become columns of the sequences, teacher item vectors become arrays.

After this stage nobody needs a teacher's network: a student learns from two arrays per teacher.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
import torch
from numpy.typing import NDArray

from components.artifacts.models import load_model, read_model_config
from components.data.flat_sequences import Sequences
from components.data.prepared import PreparedSet, read_sequences
from components.distillation.annotation import case_states, training_states
from components.errors import ArtifactError
from components.model import Ranker
from components.schema import (
    CONFIG_FILE,
    ITEMS_FILE,
    METRICS_FILE,
    SEQUENCES_FOLDER,
    STATE_PREFIX,
    USERS_FILE,
    VALID_STATE_PREFIX,
)
from components.teachers.external import ExternalTeacher
from pipelines.ray_session import training_gpu
from pipelines.stages import EXTRA_MANIFEST_FILE, StageContext
from pipelines.storage.exchange import Exchange, borrowed
from pipelines.training_job import METRIC, TEACHERS_FILE, teacher_items

ROWS_PER_GROUP = 2048  # users that are held with their states at once
PIECES = 32  # an actor takes a piece of a file, so that one file keeps several busy and progress shows
SMALLEST_PIECE, LARGEST_PIECE = 64, 4096  # users


@dataclass(frozen=True)
class Teacher:
    """One finished teacher.

    Attributes:
        name: its name in the run.
        folder: its artifact.
    """

    name: str
    folder: Path

    @cached_property
    def strength(self) -> float:
        """Validation NDCG@10."""
        metrics = json.loads((self.folder / METRICS_FILE).read_text(encoding="utf-8"))
        return float(metrics[f"valid_{METRIC}"])

    @property
    def is_external(self) -> bool:
        """Whether it brought finished arrays instead of a model."""
        return not (self.folder / CONFIG_FILE).is_file()

    @property
    def num_items(self) -> int:
        """How many items its network ranks."""
        return read_model_config(self.folder).num_items

    def model(self, device: str = "cpu") -> Ranker:
        """The trained network."""
        return load_model(self.folder).to(device).eval()

    def item_vectors(self) -> NDArray[np.float16]:
        """(N + 1, d) vectors that its states are compared with, fp16."""
        if self.is_external:
            return ExternalTeacher.load(self.folder).items.astype(np.float16)
        vectors: torch.Tensor = self.model().item_vectors()  # type: ignore[operator]
        found: NDArray[np.float16] = vectors.detach().numpy().astype(np.float16)
        return found


class SequenceAnnotator:
    """A Ray Data actor: reads a piece of a file of sequences, adds two columns per teacher, writes it as a file.

    One column holds the states of all training instances, the other that of the validation history. Teachers from files
    may lack the latter.
    """

    def __init__(self, teachers: list[Teacher], target: Path, gpu: bool, exchange: Exchange | None = None) -> None:
        torch.set_num_threads(1)
        self.device = "cuda" if gpu else "cpu"
        with borrowed(exchange, teachers) as here:
            self.models = {t.name: t.model(self.device) for t in here if not t.is_external}
            self.arrays = {t.name: ExternalTeacher.load(t.folder) for t in here if t.is_external}
        self.names, self.target, self.exchange = [teacher.name for teacher in teachers], target, exchange

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """One row per piece: its file and users there, and the numbers of its first training instance and case."""
        names = ("file", "first", "stop", "instance", "case")
        counts = [
            self._annotate(Path(file), *map(int, numbers))
            for file, *numbers in zip(*map(batch.get, names), strict=True)
        ]
        return {"instances": np.array(counts, dtype=np.int64)}

    def _annotate(self, source: Path, *numbers: int) -> int:
        """Annotate users of a file where this node finds it; what is written goes to the driver."""
        with borrowed(self.exchange, (source, self.target), self.target) as (here, target):
            return self._write(here, target, *numbers)

    def _write(self, source: Path, target: Path, first: int, stop: int, instance: int, case: int) -> int:
        """Stream the users `first` to `stop` - 1 through, so that only few users' states are in memory."""
        writer, begin = None, instance
        for table in _rows(source, first, stop):
            sequences = read_sequences(table)
            for name in self.names:
                table = self._with_states(table, sequences, name, instance, case)
            instance, case = instance + sequences.num_instances, case + len(sequences.cases("valid"))
            writer = writer or pq.ParquetWriter(
                target / f"{source.stem}-{first:09d}.parquet", table.schema, compression="zstd"
            )
            writer.write_table(table)
        if writer:
            writer.close()
        return instance - begin

    def _with_states(self, table: pa.Table, sequences: Sequences, name: str, instance: int, case: int) -> pa.Table:
        """The table with the columns of one teacher."""
        cases, valid = sequences.cases("valid"), None
        if name in self.models:
            states = training_states(self.models[name], sequences, self.device)
            valid = case_states(self.models[name], cases, self.device)
        else:
            arrays = self.arrays[name]
            states = arrays.states[instance : instance + sequences.num_instances].astype(np.float16)
            if arrays.valid_states is not None:
                valid = arrays.valid_states[case : case + len(cases)].astype(np.float16)
        table = table.append_column(f"{STATE_PREFIX}{name}", _lists(states, sequences.instance_offsets))
        if valid is None:
            return table
        offsets = np.searchsorted(cases.rows, np.arange(len(sequences) + 1))
        return table.append_column(f"{VALID_STATE_PREFIX}{name}", _lists(valid, offsets))


def _rows(file: Path, first: int, stop: int) -> Iterator[pa.Table]:
    """The rows `first` to `stop` - 1 of a Parquet file, few at once."""
    begin = 0
    for rows in pq.ParquetFile(file).iter_batches(ROWS_PER_GROUP):
        skipped, end = max(first - begin, 0), min(stop - begin, len(rows))
        if skipped < end:
            yield pa.Table.from_batches([rows.slice(skipped, end - skipped)])
        begin += len(rows)


def _lists(states: NDArray[np.float16], offsets: NDArray[np.int64]) -> pa.ListArray:
    """(U,) lists: those of the rows ``offsets[u] .. offsets[u + 1] - 1`` of `states`, end to end."""
    return pa.ListArray.from_arrays(pa.array(offsets * states.shape[1], pa.int32()), pa.array(states.reshape(-1)))


def run(context: StageContext) -> None:
    """Write a copy of the prepared set whose sequences carry the states of all teachers."""
    prepared = PreparedSet(context.input("prepare"))
    teachers = [Teacher(name, context.input(f"teach/{name}")) for name in context.config.taught_by()]
    for teacher in teachers:
        _check_items(teacher, prepared.num_items)
    copy_tables(prepared.path, context.folder)
    (context.folder / SEQUENCES_FOLDER).mkdir()
    entries = [_store_items(teacher, context.folder) for teacher in teachers]
    text = json.dumps({"teachers": entries}, indent=2, sort_keys=True) + "\n"
    (context.folder / TEACHERS_FILE).write_text(text, encoding="utf-8")
    extra = {"items": {"text_columns": prepared.text_columns}}
    (context.folder / EXTRA_MANIFEST_FILE).write_text(json.dumps(extra), encoding="utf-8")
    _annotate_files(context, prepared, teachers)


def copy_tables(prepared: Path, target: Path) -> None:
    """Copy what the prepared set knows about items and, where it does, about users."""
    for name in (ITEMS_FILE, USERS_FILE):
        if (prepared / name).is_file():
            shutil.copy(prepared / name, target / name)


def _check_items(teacher: Teacher, expected: int) -> None:
    """Refuse a teacher that ranks another set of items.

    Raises:
        ArtifactError: with both counts.
    """
    found = len(ExternalTeacher.load(teacher.folder).items) - 1 if teacher.is_external else teacher.num_items
    if found != expected:
        raise ArtifactError(
            f"teacher {teacher.name}: {teacher.folder} ranks {found:,} items, the prepared set has {expected:,}; "
            f"tune it on this set, or run again with --from teach"
        )


def _store_items(teacher: Teacher, folder: Path) -> dict[str, Any]:
    vectors = teacher.item_vectors()
    path = teacher_items(folder, teacher.name)
    path.parent.mkdir(parents=True)
    np.save(path, vectors, allow_pickle=False)
    return {"name": teacher.name, "strength": teacher.strength, "dim": int(vectors.shape[1])}


def _annotate_files(context: StageContext, prepared: PreparedSet, teachers: list[Teacher]) -> None:
    """Spread pieces of the files over actors; each loads the teachers once."""
    cluster = context.config.cluster
    gpu = training_gpu(cluster, "teachers")
    work, exchange = pieces(prepared), Exchange.of(context.folder)
    context.progress.start(prepared.sequences.num_instances, "states")
    done = ray.data.from_items(work, override_num_blocks=len(work)).map_batches(
        SequenceAnnotator,
        fn_constructor_args=(teachers, (context.folder / SEQUENCES_FOLDER).resolve(), gpu, exchange),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(len(work), cluster.num_workers if gpu else 2)),
        num_cpus=cluster.cpus_per_worker,
        num_gpus=1 if gpu else None,
        resources=cluster.placement.of("teachers"),
    )
    for row in done.iter_rows():
        context.progress.advance(int(row["instances"]))
    if exchange:
        exchange.collect(context.folder)


def pieces(prepared: PreparedSet) -> list[dict[str, Any]]:
    """What an actor takes at once: users of one file, and what it must know of those before them, in order."""
    sequences = prepared.sequences
    size = min(max(len(sequences) // PIECES, SMALLEST_PIECE), LARGEST_PIECE)
    offsets, cases = sequences.instance_offsets, sequences.cases("valid").rows
    found, before = [], 0  # users of the files before
    for file in prepared.sequence_files:
        rows = pq.ParquetFile(file).metadata.num_rows
        for first in range(0, rows, size):
            user = before + first
            found.append(
                {
                    "file": str(file.resolve()),
                    "first": first,
                    "stop": min(first + size, rows),
                    "instance": int(offsets[user]),
                    "case": int(np.searchsorted(cases, user)),
                }
            )
        before += rows
    return found
