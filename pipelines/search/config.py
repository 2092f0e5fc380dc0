"""The section `search` of a configuration."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from pipelines.model_choice import Section
from tune_spaces import SPACES, Domain

SEARCHED: Final = "searched"  # name of the winner among the students of a run
RESULT_FILE, WINNER = "search.json", "winner"  # what the stage leaves: all that was found, the winner's artifact


class SearchConfig(Section):
    """Which students are tried, under which budget.

    Attributes:
        spaces: names of `tune_spaces.SPACES`; later ones win where two have the same key.
        space: own keys, such as ``student.dim: [32, 64]``; they win over the named spaces.
        mode: "constrained" looks for the best validation NDCG@10 under the budgets, and stops what falls behind early
            (ASHA); "front" looks for good NDCG@10, few bytes and low latency at once, and stops what no longer gains.
        trials: students that are trained.
        max_parameters: a student with more is never trained.
        max_bytes: bytes of the stored tensors; a student with more is never trained.
        max_latency_ms: median of one request on one thread; a student that needs longer cannot win.
        grace_epochs: a student is not stopped before it has trained so long.
        reduction: of those that have come so far, ASHA lets one in so many go on.
        seed: of every student's training, and of the search; null: the first of the run's seeds.
        max_parallel: students that train at the same time; null: as many as the cluster has places for.
    """

    spaces: list[str] = Field(default=["compression"])
    space: dict[str, Domain] = Field(default={})
    mode: Literal["constrained", "front"] = "constrained"
    trials: PositiveInt = 40
    max_parameters: PositiveInt | None = None
    max_bytes: PositiveInt | None = None
    max_latency_ms: PositiveFloat | None = None
    grace_epochs: PositiveInt = 5
    reduction: int = Field(default=3, ge=2)
    seed: NonNegativeInt | None = None
    max_parallel: PositiveInt | None = None

    def whole_space(self) -> dict[str, Domain]:
        """Every key that is searched, in a fixed order.

        Raises:
            KeyError: a name is no space; `pipelines.search.check` says so before.
        """
        found: dict[str, Domain] = {}
        for name in self.spaces:
            found |= SPACES[name]
        return dict(sorted((found | self.space).items()))
