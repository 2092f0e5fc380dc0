"""What a method does with one side of the interactions, users or items; a method is two such sides."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn
from torch.optim import Adam

from components.embedding_size.visits import Visits


class Side(Protocol):
    """Embeddings of users, or of items, and how their sizes are found. Steps count those that the model has made."""

    @property
    def network(self) -> nn.Module | None:
        """What the model's own optimizer learns of it, None where there is nothing."""
        ...

    @property
    def sizes(self) -> Tensor | None:
        """(N,) index of everybody's chosen size; None where sizes are not chosen."""
        ...

    @property
    def dim(self) -> int:
        """Numbers that everybody holds where sizes are not chosen."""
        ...

    def ensure(self, count: int) -> None:
        """Let entities 0 … count - 1 exist."""

    def trial(self, visits: Visits, step: int) -> Tensor | None:
        """(B, 128) vectors of past interactions, to learn sizes from; None where nothing is searched."""

    def leaves(self) -> list[Tensor]:
        """What the loss of the trial is differentiated by; nothing where sizes learn by reward."""

    def learn(self, visits: Visits, losses: Tensor, gradients: list[Tensor]) -> None:
        """Learn from the trial: (B,) its losses, and the gradient of their sum by each of the `leaves`."""

    def adapt(self, visits: Visits, step: int) -> None:
        """Choose sizes for the batch that comes now."""

    def vectors(self, visits: Visits, step: int) -> Tensor:
        """(B, 128) what the network reads, to be learned."""

    def update(self, step: int) -> None:
        """Adam's step on the embeddings that `vectors` read."""

    def finish(self, visits: Visits, losses: Tensor) -> None:
        """Remember what the batch showed: (B,) losses before the step."""

    def served(self, entities: Tensor, step: int) -> Tensor:
        """(n, 128) vectors by running statistics, for answers one by one."""

    def tensors(self) -> dict[str, Tensor]:
        """All that `restore` needs, the parameters of `network` aside."""

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Stand as when `tensors` were taken."""


def make_adam(module: nn.Module, learning_rate: float) -> Adam:
    """Adam over all parameters, fused: many small tensors cost one call."""
    return Adam(module.parameters(), lr=learning_rate, fused=True)


def adam_tensors(optimizer: Adam, prefix: str) -> dict[str, Tensor]:
    """Moments and steps by name, so that no pickle is needed."""
    state = optimizer.state_dict()["state"]
    return {f"{prefix}{index}.{name}": one.clone() for index, own in state.items() for name, one in own.items()}


def restore_adam(optimizer: Adam, tensors: dict[str, Tensor]) -> None:
    """Take over what `adam_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, one in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = one.clone()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def module_tensors(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Parameters and buffers."""
    return {f"{prefix}{name}": one.detach().clone() for name, one in module.state_dict().items()}


def below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}
