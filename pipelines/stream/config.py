"""The section `stream` of a configuration."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, NonNegativeInt, model_validator

from components.embedding_size.config import Method, StreamModelConfig, Task
from pipelines.model_choice import Section


class EsapnStudyConfig(Section):
    """What `distilrec study esapn` runs.

    Attributes:
        methods: rows of its tables.
        tasks: which labels; each is a stream of its own.
        seeds: every method is run once per seed; null: the run's seeds.
        modes: further rows of ESAPN, with these keys of `stream` changed, by name.
    """

    methods: Annotated[list[Method], Field(min_length=1)] = Field(default=["fixed", "darts", "autoemb", "esapn"])
    tasks: Annotated[list[Task], Field(min_length=1)] = Field(default=["binary", "five-class"])
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1)] | None = None
    modes: dict[str, dict[str, str | int | float | bool]] = Field(default={})


class StreamConfig(StreamModelConfig):
    """What `distilrec stream` runs; the keys of `StreamModelConfig` hold for all methods alike.

    Attributes:
        methods: which stream over the log, one after another.
        serve: the one that the endpoint serves and that `--to-blocks` reads.
        test_fraction: share of the ratings, the last ones, that the table is about; methods go on learning there.
        checkpoint_seconds: a killed stream repeats at most so much.
        study: what `distilrec study esapn` runs.
    """

    methods: Annotated[list[Method], Field(min_length=1)] = Field(default=["fixed", "esapn"])
    serve: Method = "esapn"
    test_fraction: float = Field(default=0.2, gt=0, le=1)
    checkpoint_seconds: float = Field(default=30.0, ge=0)
    study: EsapnStudyConfig = EsapnStudyConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.serve not in self.methods:
            raise ValueError(f"serve: {self.serve} is none of the methods, {', '.join(self.methods)}; add it")
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods: one is there twice: {', '.join(self.methods)}")
        for name, changes in self.study.modes.items():
            StreamModelConfig.model_validate({**self.model().model_dump(), **changes})
            if name in self.study.methods:
                raise ValueError(f"study.modes: {name} is the name of a method; choose another")
        return self

    def model(self, **changes: object) -> StreamModelConfig:
        """The arguments of a model; the learning rate and the like are the same for all methods."""
        own = {name: getattr(self, name) for name in StreamModelConfig.model_fields}
        return StreamModelConfig.model_validate({**own, **changes})
