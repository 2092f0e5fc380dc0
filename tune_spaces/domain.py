"""The values that a search may give one key of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

RANGES = ("uniform", "log_uniform", "integers")


class Domain(BaseModel):
    """Exactly one of the four; a list alone is a choice.

    Attributes:
        choice: these values, in no order.
        uniform: lowest and highest number.
        log_uniform: the same; as many draws between 1 and 10 as between 10 and 100.
        integers: lowest and highest, both included.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    choice: list[Any] | None = Field(default=None, min_length=1)
    uniform: tuple[float, float] | None = None
    log_uniform: tuple[float, float] | None = None
    integers: tuple[int, int] | None = None

    @model_validator(mode="before")
    @classmethod
    def _list_is_a_choice(cls, given: Any) -> Any:
        return {"choice": given} if isinstance(given, list) else given

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        given = [name for name in ("choice", *RANGES) if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"expected a list, or one of choice, {', '.join(RANGES)}; got {' and '.join(given) or '{}'}"
            )
        if given[0] in RANGES:
            low, high = getattr(self, given[0])
            if not low < high:
                raise ValueError(f"{given[0]}: expected [lowest, highest], got [{low:g}, {high:g}]")
            if given[0] == "log_uniform" and low <= 0:
                raise ValueError(f"log_uniform: expected numbers above 0, got [{low:g}, {high:g}]")
        return self

    def primitive(self) -> Any:
        """What Ray Tune draws from; a choice is drawn by its place, since its values may be of any type."""
        from ray import tune  # here: configurations are read before Ray's environment is set

        if self.choice is not None:
            return tune.choice(list(range(len(self.choice))))
        if self.uniform is not None:
            return tune.uniform(*self.uniform)
        if self.log_uniform is not None:
            return tune.loguniform(*self.log_uniform)
        assert self.integers is not None
        return tune.randint(self.integers[0], self.integers[1] + 1)

    def value(self, drawn: Any) -> Any:
        """The key's value for what `primitive` drew: a plain JSON value."""
        if self.choice is not None:
            return self.choice[int(drawn)]
        return int(drawn) if self.integers is not None else float(drawn)

    def drawn(self, value: Any) -> Any:
        """What `primitive` would have drawn for a value.

        Raises:
            ValueError: the value is none of the domain's.
        """
        if self.choice is not None:
            return self.choice.index(value)
        low, high = self.uniform or self.log_uniform or self.integers or (0, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(f"{value!r} is not between {low:g} and {high:g}")
        return value

    def corners(self) -> list[Any]:
        """All values of a choice, the two ends of a range."""
        if self.choice is not None:
            return list(self.choice)
        return list(self.uniform or self.log_uniform or self.integers or ())


Space = Mapping[str, Domain]


def space(values: Mapping[str, Any]) -> dict[str, Domain]:
    """A space of plain values: what each key of the configuration may be."""
    return {key: Domain.model_validate(value) for key, value in values.items()}
