"""Stage ``annotate``: teacher states become columns of the sequences, teacher item vectors become arrays.

After this stage nobody needs a teacher's network: a student learns from two arrays per teacher.
"""

from __future__ import annotations

import json
import shutil
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
from pipelines.stages import StageContext
from pipelines.training_job import METRIC, TEACHERS_FILE, teacher_items

ROWS_PER_GROUP = 2048  # users that are held with their states at once


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
    """A Ray Data actor: reads a file of sequences, adds two columns per teacher, writes the file's annotated copy.

    One column holds the states of all training instances, the other that of the validation history. Teachers from files
    may lack the latter.
    """

    def __init__(self, teachers: list[Teacher], target: Path, gpu: bool) -> None:
        torch.set_num_threads(1)
        self.device = "cuda" if gpu else "cpu"
        self.models = {t.name: t.model(self.device) for t in teachers if not t.is_external}
        self.arrays = {t.name: ExternalTeacher.load(t.folder) for t in teachers if t.is_external}
        self.names, self.target = [teacher.name for teacher in teachers], target

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """One row per file: its path and the numbers of its first training instance and validation case."""
        rows = zip(batch["file"], batch["instance"], batch["case"], strict=True)
        counts = [self._annotate(Path(file), int(instance), int(case)) for file, instance, case in rows]
        return {"instances": np.array(counts, dtype=np.int64)}

    def _annotate(self, source: Path, instance: int, case: int) -> int:
        """Stream the file through in row groups, so that only few users' states are in memory."""
        writer, first = None, instance
        for rows in pq.ParquetFile(source).iter_batches(ROWS_PER_GROUP):
            table = pa.Table.from_batches([rows])
            sequences = read_sequences(table)
            for name in self.names:
                table = self._with_states(table, sequences, name, instance, case)
            instance, case = instance + sequences.num_instances, case + len(sequences.cases("valid"))
            writer = writer or pq.ParquetWriter(self.target / source.name, table.schema, compression="zstd")
            writer.write_table(table)
        if writer:
            writer.close()
        return instance - first

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
    """Spread the files over actors; each loads the teachers once."""
    cluster = context.config.cluster
    gpu = training_gpu(cluster)
    files = prepared.sequence_files
    rows = [pq.ParquetFile(file).metadata.num_rows for file in files]
    borders = np.concatenate([[0], np.cumsum(rows)])  # users before each file
    instances = prepared.sequences.instance_offsets[borders]
    cases = np.searchsorted(prepared.sequences.cases("valid").rows, borders)
    context.progress.start(int(instances[-1]), "states")
    work = [
        {"file": str(file.resolve()), "instance": int(instance), "case": int(case)}
        for file, instance, case in zip(files, instances[:-1], cases[:-1], strict=True)
    ]
    done = ray.data.from_items(work, override_num_blocks=len(work)).map_batches(
        SequenceAnnotator,
        fn_constructor_args=(teachers, (context.folder / SEQUENCES_FOLDER).resolve(), gpu),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(len(work), cluster.num_workers if gpu else 2)),
        num_cpus=cluster.cpus_per_worker,
        num_gpus=1 if gpu else None,
    )
    for row in done.iter_rows():
        context.progress.advance(int(row["instances"]))
