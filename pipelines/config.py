"""The configuration of a run: one frozen object, made of the configurations that live beside what they configure."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ConfigDict, Field

from components.data.cleaning import PrepareConfig
from components.data.readers import InputConfig
from components.distillation.config import DistillationConfig
from components.features.image import ImageConfig
from components.features.text import TextConfig
from components.teachers.pretraining import ContrastiveConfig
from components.training.config import TrainingConfig
from pipelines.cluster.placement import PlacementConfig
from pipelines.evaluate import EvaluateConfig
from pipelines.export import ExportConfig
from pipelines.model_choice import ModelChoice, Name, Section
from pipelines.search.config import SearchConfig
from pipelines.storage.place import is_remote, working_folder
from pipelines.stream.config import StreamConfig
from pipelines.study.config import StudyConfig

PLAIN: Final = "plain"  # the configured student without distillation
DISTILLED: Final = "prm-kd"  # the configured student with the section `distillation` as it stands
DEFAULT_STUDENT: Final = "sasrec"
MAX_OVERLAP: Final = 0.01
COUNTING: Final = frozenset({"mostpop", "markov", "itemknn"})  # students that count: no seed changes them


class ResourcesConfig(Section):
    """What the training of one teacher asks of the cluster; what is null is as `cluster` says."""

    num_workers: int | None = Field(default=None, ge=1)
    use_gpu: bool | Literal["auto"] | None = None
    cpus_per_worker: float | None = Field(default=None, gt=0)
    gpus_per_worker: float | None = Field(default=None, gt=0)


class TeacherConfig(ModelChoice):
    """A teacher.

    Attributes:
        training: how it is tuned.
        pretrained: start from the weights of stage `pretrain`; or the folder of a pre-trained artifact of any run.
        pretraining: how it learns from other domains; None as `pretrain.training` says.
        seed: of its own training; None takes the first of the run's `seeds`. Pre-training always does.
        resources: what its training asks of the cluster.
    """

    training: TrainingConfig = TrainingConfig()
    pretrained: bool | str = False
    pretraining: TrainingConfig | None = None
    seed: int | None = Field(default=None, ge=0)
    resources: ResourcesConfig = ResourcesConfig()


class DomainConfig(Section):
    """A data set that only pre-training sees; `data` is a path below the run's own `data` unless it is absolute."""

    data: str = ""
    input: InputConfig
    prepare: PrepareConfig = PrepareConfig()


class PretrainConfig(Section):
    """How teachers with ``pretrained: true`` learn from other domains first.

    Attributes:
        max_overlap: largest share of the run's own items that may also stand, by their text, in the domains. They are
            left out of the domains; where there are more, the domains are probably not other ones.
    """

    domains: dict[Name, DomainConfig] = Field(min_length=1)
    training: TrainingConfig = TrainingConfig()
    contrastive: ContrastiveConfig = ContrastiveConfig()
    max_overlap: float = Field(default=MAX_OVERLAP, ge=0, le=1)


class ClusterConfig(Section):
    """What the run may use. Nothing here changes a result, so nothing here makes a stage run again.

    Attributes:
        address: an existing cluster; None starts Ray on this machine unless RAY_ADDRESS is set.
        num_cpus: logical CPUs of the local session; None takes the cores, at least 4.
        num_workers: processes that train one model together.
        use_gpu: "auto" uses GPUs where the cluster has enough of them.
        cpus_per_worker: logical CPUs of one training worker.
        gpus_per_worker: GPUs of one training worker where it uses any; several workers share a GPU at a fraction.
        max_parallel_teachers: teachers that train (or pre-train) at the same time; None starts all, and those that find
            no free place wait.
        max_parallel_students: students that train at the same time.
        object_store_mb: shared memory of the local session.
        temp_dir: folder of the local session's sockets and logs; keep it short.
        placement: which nodes each role of stages runs on.
        grows_to: file of the cluster that names its node types: that of Ray's cluster launcher, or a KubeRay manifest.
            What it may grow to counts as there: requests wait for it. None: the cluster stays as it is.
    """

    address: str | None = None
    num_cpus: int | None = Field(default=None, ge=1)
    num_workers: int = Field(default=1, ge=1)
    use_gpu: bool | Literal["auto"] = "auto"
    cpus_per_worker: float = Field(default=1.0, gt=0)
    gpus_per_worker: float = Field(default=1.0, gt=0)
    max_parallel_teachers: int | None = Field(default=None, ge=1)
    max_parallel_students: int = Field(default=2, ge=1)
    object_store_mb: int = Field(default=512, ge=80)
    temp_dir: str | None = None
    placement: PlacementConfig = PlacementConfig()
    grows_to: str | None = None


@dataclass(frozen=True)
class Source:
    """One log to prepare: its root folder, how it is read and how it is cleaned."""

    data: str
    input: InputConfig
    prepare: PrepareConfig


@dataclass(frozen=True)
class Variant:
    """One student of the leaderboard: which model, and how it is distilled (None: not at all)."""

    name: str
    student: ModelChoice
    distillation: DistillationConfig | None


class RunConfig(Section):
    """A whole run.

    Attributes:
        name: folder of the run below `output`.
        output: where runs are kept: a folder that all nodes see, or ``s3://…``, ``gs://…``.
        seeds: every student is trained once per seed.
        data: root folder of the input, local or remote (``s3://…``).
        teachers: by name; empty trains plain students alone.
        start: artifact of a trained student of the same kind, such as ``runs/NAME/export``: students begin with its
            network and with its vectors of the items that both know; None: at random.
        variants: more distilled students by name; each overrides keys of `distillation`.
        baselines: kinds of students to compare with, or ``plain``, the configured student without teachers.
        search: how the best small student is searched; it joins the others as ``searched``.
        study: what `distilrec study` trains; no stage of the run reads it.
        stream: what streams over ratings; it belongs to ``prepare.task: ratings``, and is all that such a run does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    name: Name
    output: str = "runs"
    seeds: list[int] = Field(default=[0], min_length=1)
    data: str
    input: InputConfig
    prepare: PrepareConfig = PrepareConfig()
    features: TextConfig | None = None
    images: ImageConfig | None = None
    pretrain: PretrainConfig | None = None
    teachers: dict[Name, TeacherConfig] = Field(default={})
    student: ModelChoice = ModelChoice(kind=DEFAULT_STUDENT)
    training: TrainingConfig = TrainingConfig()
    distillation: DistillationConfig | None = None
    start: str | None = None
    variants: dict[Name, dict[str, Any]] = Field(default={})
    baselines: list[Name] = Field(default=["mostpop", "markov", PLAIN])
    evaluate: EvaluateConfig = EvaluateConfig()
    export: ExportConfig = ExportConfig()
    search: SearchConfig | None = None
    study: StudyConfig = StudyConfig()
    stream: StreamConfig | None = None
    cluster: ClusterConfig = ClusterConfig()

    @property
    def folder(self) -> Path:
        """The run's own folder; where this machine works on it, if it is kept in an object store."""
        return working_folder(self.output) / self.name

    @property
    def place(self) -> str:
        """Where the run is kept: its folder, or its URI."""
        return f"{self.output.rstrip('/')}/{self.name}" if is_remote(self.output) else str(self.folder)

    def source(self, domain: str = "") -> Source:
        """What stage ``prepare`` reads: the run's own log, or that of a pre-training domain."""
        if not domain:
            return Source(self.data, self.input, self.prepare)
        chosen = self.domains[domain]
        return Source(below(self.data, chosen.data), chosen.input, chosen.prepare)

    @property
    def domains(self) -> Mapping[str, DomainConfig]:
        """The pre-training domains that some teacher needs, by name."""
        needed = any(teacher.pretrained is True for teacher in self.teachers.values())
        return self.pretrain.domains if self.pretrain and needed else {}

    @property
    def streams(self) -> bool:
        """Whether the run is a stream of ratings, and no ranking of items after sequences."""
        return self.prepare.task == "ratings"

    @property
    def stream_section(self) -> StreamConfig:
        """The section `stream`, as it is by default where it is absent."""
        return self.stream or StreamConfig()

    def pretraining_of(self, teacher: str) -> TrainingConfig:
        """How a teacher learns from other domains."""
        shared = self.pretrain.training if self.pretrain else TrainingConfig()
        return self.teachers[teacher].pretraining or shared

    def cluster_of(self, teacher: str) -> ClusterConfig:
        """What the training of a teacher may use: the run's cluster with the teacher's own requests."""
        wanted = self.teachers[teacher].resources.model_dump(exclude_none=True)
        return self.cluster.model_copy(update=wanted)

    def students(self) -> Iterator[Variant]:
        """Every student that stage ``distill`` trains, baselines first."""
        for name in dict.fromkeys(self.baselines):
            yield Variant(name, self.student if name == PLAIN else ModelChoice(kind=name), None)
        if self.distillation and self.teachers:
            yield Variant(DISTILLED, self.student, self.distillation)
            base = self.distillation.model_dump()
            for name, changes in self.variants.items():
                yield Variant(name, self.student, DistillationConfig.model_validate({**base, **changes}))

    def taught_by(self) -> list[str]:
        """Names of the teachers that some student learns from; the others are only ranked."""
        configs = [variant.distillation for variant in self.students() if variant.distillation]
        if any(config.teachers is None for config in configs):
            return list(self.teachers)
        named = {name for config in configs for name in config.teachers or ()}
        return [name for name in self.teachers if name in named]

    def variant(self, name: str) -> Variant:
        """The student called `name`.

        Raises:
            KeyError: the run has no such student.
        """
        return {variant.name: variant for variant in self.students()}[name]


def below(root: str, path: str) -> str:
    """`path` below `root`, or `path` itself where it is absolute or remote.

    >>> below("s3://bucket/logs", "food"), below("/data", "/other"), below("/data", "")
    ('s3://bucket/logs/food', '/other', '/data')
    """
    if not path:
        return root
    return path if os.path.isabs(path) or "://" in path else f"{root.rstrip('/')}/{path}"
