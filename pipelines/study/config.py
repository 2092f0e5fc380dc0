"""The section `study` of a configuration: what `distilrec study prm-kd` trains beside the run's own student."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from pipelines.model_choice import ModelChoice, Name, Section

DEFAULT_STUDENTS: Final = ("sasrec", "gru4rec", "nextitnet", "fm", "deepfm", "lightgcn")
DEFAULT_BASELINES: Final = ("gru4rec", "bert4rec", "recguru", "mostpop", "markov")


class StudentConfig(ModelChoice):
    """A student of the study: its kind and, beside it, arguments of that kind.

    What is not given is as in the section `student`, as far as the kind has it: everything for the same kind, `dim` and
    `max_length` for another one, because the paper compares models of one size.

    Attributes:
        training: keys of the section `training` that differ for this student, alone and distilled.
        distillation: keys of the section `distillation` that differ for it.
        distilled: also train it after the teachers; false only lets `baselines` name it.
    """

    training: dict[str, Any] = Field(default={})
    distillation: dict[str, Any] = Field(default={})
    distilled: bool = True


class SweepsConfig(Section):
    """Values of Figure 5; an empty list leaves a sweep out.

    Attributes:
        temperature: tau of Eq. 1, for all teachers alike.
        weight: lambda of Eq. 6.
        dim: width of the student's item vectors, with and without teachers.
        seeds: of these trials, the most numerous of a study; null: those of the study.
    """

    temperature: list[PositiveFloat] = Field(default=[0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0])
    weight: list[NonNegativeFloat] = Field(default=[0.1, 0.5, 1.0, 2.0, 5.0, 10.0])
    dim: list[PositiveInt] = Field(default=[16, 32, 64, 128, 256])
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1)] | None = None


class CostConfig(Section):
    """How inference is measured for Table 4.

    Attributes:
        users: users whose targets each model ranks per round.
        rounds: how often every model is measured, each time in a process of its own.
    """

    users: int = Field(default=512, ge=1)
    rounds: int = Field(default=3, ge=1)


class CpRecConfig(Section):
    """What `distilrec study cprec` trains.

    Attributes:
        paper: the paper's data set that this one corresponds to; its printed numbers stand beside ours.
        students: by name; each is trained whole and compressed. What is not given is as in `StudentConfig`.
        blocks: keys of `compression` that say where blocks end and how wide their vectors are; the same for all.
        transfer: run folder of such a study on other items; its students hand their networks over to these
            (table ``transfer``).
    """

    paper: Literal["weishi", "ml20", "tiktok", "ml100"] | None = None
    students: dict[Name, StudentConfig] = Field(
        default={kind: StudentConfig(kind=kind) for kind in ("nextitnet", "gru4rec")}
    )
    blocks: dict[str, Any] = Field(default={})
    transfer: str | None = None


class StudyConfig(Section):
    """A study on the run's data: of PRM-KD, but for `cprec`, `seeds` and `cost`.

    Attributes:
        paper: the paper's data set that this one corresponds to; its printed numbers stand beside ours.
        seeds: every trial is trained once per seed; null: the run's seeds.
        students: by name; each is trained alone and after the teachers.
        baselines: rows of the main table beside student and teachers: names of `students`, or kinds.
        sweeps: values of the parameters that are varied.
        cost: how inference is measured.
        cprec: what the study of CpRec trains.
    """

    paper: Literal["instruments", "toys", "scientific", "arts", "games"] | None = None
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1)] | None = None
    students: dict[Name, StudentConfig] = Field(default={kind: StudentConfig(kind=kind) for kind in DEFAULT_STUDENTS})
    baselines: list[Name] = Field(default=list(DEFAULT_BASELINES))
    sweeps: SweepsConfig = SweepsConfig()
    cost: CostConfig = CostConfig()
    cprec: CpRecConfig = CpRecConfig()
