"""What several sections of the configuration are made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+(-[A-Za-z0-9_]+)*$", max_length=64)]


class Section(BaseModel):
    """A part of the configuration: frozen, unknown keys forbidden."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelChoice(BaseModel):
    """A registered model: `kind`, and the arguments of that kind beside it.

    The arguments are checked against the registry when the file is loaded (`pipelines.load_config`).
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: str

    @property
    def arguments(self) -> dict[str, Any]:
        """What the kind's own configuration takes."""
        return dict(self.model_extra or {})
