"""How a streaming model is built and learns."""

from __future__ import annotations

from typing import Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Method = Literal["fixed", "darts", "autoemb", "esapn"]
Task = Literal["binary", "five-class"]
NormMode = Literal["branches", "selected", "group"]
METHODS: Final[tuple[Method, ...]] = get_args(Method)
TASKS: Final[tuple[Task, ...]] = get_args(Task)
CLASSES: Final = 5


class StreamModelConfig(BaseModel):
    """Arguments of a streaming model, the same for all four methods.

    Attributes:
        task: ``binary``: is the rating above the threshold; ``five-class``: which of five grades it is.
        bn_mode: of ESAPN, over which rows batch normalization takes its statistics: ``branches``, the authors' code:
            every size's branch over all rows of the batch, with all six embeddings of everybody in memory; ``group``:
            every size over the rows that have it, with nothing in memory but the chosen sizes; ``selected``, the
            paper's text: over all rows at once. Under ``selected`` enlarging changes no prediction, so the policy has
            nothing to learn: it is there to show that.
        batch_size: interactions that are predicted, and then learned, together.
        learning_rate: of the model (Adam).
        policy_learning_rate: of policies, controllers and weights of sizes (Adam).
        history_losses: T of Eq. 2, the losses that the reward compares with.
        validation: what the policy learns on: ``last_batch``, the interactions just learned; ``random``: some of all
            past ones, drawn from a uniform sample of `reservoir` that is kept.
        reservoir: past interactions that ``validation: random`` keeps.
        max_frequency: larger frequencies count as this one in the state of policies and controllers.
        loss: ``sum`` over the batch, as the authors' code, or ``mean``, as Eq. 3 and 4.
        row_updates: ``dense``: rows that do not occur go on with the momentum of Adam, as in the authors' code;
            computed when they occur next, so that a step costs what its own rows cost. ``sparse``: they stand still.
        mask_in_loss: count actions that the largest size forces among those that the policy learns from, as the
            authors' code.
        restart_frequencies: count frequencies anew where the test part begins, as the authors' code.
        max_entities: users, and items, that the model takes; bounds the memory against endless new ids.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Task = "binary"
    bn_mode: NormMode = "branches"
    batch_size: int = Field(default=500, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    policy_learning_rate: float = Field(default=1e-4, gt=0)
    history_losses: int = Field(default=5, ge=1)
    validation: Literal["last_batch", "random"] = "last_batch"
    reservoir: int = Field(default=100_000, ge=1)
    max_frequency: int = Field(default=4096, ge=1)
    loss: Literal["sum", "mean"] = "sum"
    row_updates: Literal["dense", "sparse"] = "dense"
    mask_in_loss: bool = False
    restart_frequencies: bool = False
    max_entities: int = Field(default=10_000_000, ge=1)

    @property
    def num_outputs(self) -> int:
        """Logits of a prediction."""
        return 1 if self.task == "binary" else CLASSES
