"""Test-then-train over a stream, a batch at a time (ESAPN, Algorithm 1; the other methods share its loop)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from components.embedding_size.autoemb import AutoEmbSide
from components.embedding_size.config import Method, StreamModelConfig
from components.embedding_size.darts import DartsSide
from components.embedding_size.esapn import EsapnSide
from components.embedding_size.fixed import FixedSide
from components.embedding_size.labels import correct, row_losses
from components.embedding_size.networks import Head
from components.embedding_size.reservoir import Reservoir
from components.embedding_size.side import (
    Side,
    adam_tensors,
    below,
    make_adam,
    module_tensors,
    restore_adam,
)
from components.embedding_size.sizes import BYTES, SIZES, total_dim
from components.embedding_size.stores import histogram
from components.embedding_size.visits import Frequencies, Visits, visits_of
from components.errors import ArtifactError, DataError, UnknownNameError

SIDES: Final[Mapping[str, Callable[[StreamModelConfig, torch.Generator], Side]]] = {
    "fixed": FixedSide,
    "darts": DartsSide,
    "autoemb": AutoEmbSide,
    "esapn": EsapnSide,
}
STATE_VERSION: Final = 1


@dataclass(frozen=True)
class Predicted:
    """What was predicted of a batch before it was learned; all (B,).

    Attributes:
        losses: of every prediction.
        correct: whether the more probable label was right.
        users: frequencies of the users, and so `items`.
        user_sizes: numbers in the embeddings of the users, and so `item_sizes`.
    """

    losses: Tensor
    correct: Tensor
    users: Visits
    items: Visits
    user_sizes: Tensor
    item_sizes: Tensor


class StreamLearner:
    """A streaming model that predicts each batch and then learns it.

    Args:
        method: fixed, darts, autoemb or esapn.
        config: its arguments.
        seed: of all that is random. The state of the global generator plays no part and is left alone.

    Raises:
        UnknownNameError: there is no such method.
    """

    def __init__(self, method: Method, config: StreamModelConfig, seed: int) -> None:
        if method not in SIDES:
            raise UnknownNameError("streaming method", method, SIDES)
        self.method, self.config, self.seed = method, config, seed
        self.generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.users, self.items = (SIDES[method](config, self.generator) for _ in range(2))
            self.head = Head(config.num_outputs)
        modules = {"head": self.head, "of_users": self.users.network, "of_items": self.items.network}
        self.network = nn.ModuleDict({name: one for name, one in modules.items() if one is not None})
        self.optimizer = make_adam(self.network, config.learning_rate)
        self.frequencies = (Frequencies(), Frequencies())
        self.past = Reservoir(config.reservoir, 5, self.generator) if config.validation == "random" else None
        self.before: tuple[Visits, Visits, Tensor] | None = None  # the batch that was learned last
        self.steps = 0
        self.interactions = 0

    def step(self, users: Tensor, items: Tensor, labels: Tensor) -> Predicted:
        """Predict a batch, then learn it.

        Args:
            users: (B,) int64 numbers from 0; B is at least 1.
            items: (B,) the same.
            labels: (B,) int64, 0 or 1, or grades 0 to 4.

        Raises:
            DataError: there are more users or items than `max_entities`; nothing was changed.
        """
        self._check(users, items)
        self.users.ensure(int(users.max()) + 1)
        self.items.ensure(int(items.max()) + 1)
        if self.before is not None:
            self._search(*self._validation(len(users)))
        seen = (self.frequencies[0].visit(users), self.frequencies[1].visit(items), labels)
        predicted = self._learn(*seen)
        self._remember(seen)
        self.interactions += len(users)
        return predicted

    def _search(self, users: Visits, items: Visits, labels: Tensor) -> None:
        """The stage in which sizes are learned, and nothing of the model."""
        vectors = self.users.trial(users, self.steps), self.items.trial(items, self.steps)
        if vectors[0] is None or vectors[1] is None:
            return
        leaves = [self.users.leaves(), self.items.leaves()]
        with torch.set_grad_enabled(bool(leaves[0])):
            losses = row_losses(self.head(vectors[0], vectors[1], track=False), labels, self.config.task)
        gradients: list[Tensor] = []
        if leaves[0]:
            gradients = list(torch.autograd.grad(losses.sum(), [*leaves[0], *leaves[1]]))
        self.users.learn(users, losses.detach(), gradients[: len(leaves[0])])
        self.items.learn(items, losses.detach(), gradients[len(leaves[0]) :])

    def _learn(self, users: Visits, items: Visits, labels: Tensor) -> Predicted:
        """The stage in which the model learns, and no policy."""
        self.users.adapt(users, self.steps)
        self.items.adapt(items, self.steps)
        vectors = self.users.vectors(users, self.steps), self.items.vectors(items, self.steps)
        logits = self.head(*vectors, track=True)
        losses = row_losses(logits, labels, self.config.task)
        (losses.sum() if self.config.loss == "sum" else losses.mean()).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1
        self.users.update(self.steps)
        self.items.update(self.steps)
        losses = losses.detach()
        self.users.finish(users, losses)
        self.items.finish(items, losses)
        right = correct(logits.detach(), labels, self.config.task)
        return Predicted(losses, right, users, items, _dims(self.users, users), _dims(self.items, items))

    def restart_frequencies(self) -> None:
        """Count frequencies anew, as the authors' code does where its test part begins; it also skips a search."""
        for one in self.frequencies:
            one.restart()
        self.before = None

    def _check(self, users: Tensor, items: Tensor) -> None:
        limit = self.config.max_entities
        for name, rows in (("user", users), ("item", items)):
            if int(rows.max()) >= limit:
                raise DataError(
                    f"the stream has more than {limit:,} {name}s (number {int(rows.max()):,} came); raise "
                    "max_entities where the memory suffices, or look why so many new ids come"
                )

    def _validation(self, count: int) -> tuple[Visits, Visits, Tensor]:
        if self.past is None:
            assert self.before is not None
            return self.before
        users, items, labels, user_frequency, item_frequency = self.past.draw(count).unbind(1)
        return visits_of(users, user_frequency), visits_of(items, item_frequency), labels

    def _remember(self, seen: tuple[Visits, Visits, Tensor]) -> None:
        users, items, labels = self.before = seen
        if self.past is not None:
            rows = (users.rows, items.rows, labels, users.frequency, items.frequency)
            self.past.add(torch.stack(rows, 1))

    # What is known of it

    @torch.no_grad()
    def logits(self, users: Tensor, items: Tensor) -> Tensor:
        """(n, out) predictions one by one, by running statistics: no row of a call changes another.

        The serving copy (`components.embedding_size.served`) computes the same faster.
        """
        rows = torch.cat([self.users.served(users, self.steps), self.items.served(items, self.steps)], 1)
        head, groups = self.head, torch.zeros(len(rows), dtype=torch.int64)
        hidden = head.inner.running(head.hidden(head.outer.running(rows, groups)), groups)
        return head.output(torch.tanh(hidden))  # type: ignore[no-any-return]

    def memory(self) -> dict[str, Any]:
        """Per side: entities, of every size where sizes are chosen, numbers held, and FIXED's (Table 2)."""
        found = {}
        for name, side, known in (("users", self.users, 0), ("items", self.items, 1)):
            counts = self.frequencies[known].counts
            entities = int((counts > 0).sum()) if side.sizes is None else len(side.sizes)
            chosen = None if side.sizes is None else histogram(side.sizes)
            total = total_dim(chosen) if chosen else entities * side.dim
            fixed = entities * SIZES[-1]
            found[name] = {
                "entities": entities,
                "sizes": chosen,
                "total_dim": total,
                "bytes": total * BYTES,
                "fixed_dim": fixed,
                "ratio": total / fixed if fixed else 0.0,
            }
        return found

    # Going on after a stop

    def tensors(self) -> dict[str, Tensor]:
        """All numbers that `restore` needs."""
        found = module_tensors(self.network, "network.") | adam_tensors(self.optimizer, "adam.")
        for name, side in (("users", self.users), ("items", self.items)):
            found |= {f"{name}.{key}": one for key, one in side.tensors().items()}
        found |= {f"frequency.{index}": one.counts.clone() for index, one in enumerate(self.frequencies)}
        found["generator"] = self.generator.get_state()
        if self.before is not None:
            users, items, labels = self.before
            for name, one in (("users", users.rows), ("items", items.rows), ("labels", labels)):
                found[f"before.{name}"] = one.clone()
            found["before.user_frequency"] = users.frequency.clone()
            found["before.item_frequency"] = items.frequency.clone()
        if self.past is not None:
            found["past"] = self.past.rows.clone()
        return found

    def state(self) -> dict[str, Any]:
        """What else it needs, as JSON."""
        return {
            "version": STATE_VERSION,
            "method": self.method,
            "seed": self.seed,
            "config": self.config.model_dump(mode="json"),
            "steps": self.steps,
            "interactions": self.interactions,
            "seen": self.past.seen if self.past else 0,
        }

    def restore(self, tensors: dict[str, Tensor], state: Mapping[str, Any]) -> None:
        """Stand as when `tensors` and `state` were taken.

        Raises:
            ArtifactError: they are of another method, configuration, seed or version; nothing was changed.
        """
        own = self.state()
        for key in ("version", "method", "seed", "config"):
            if state.get(key) != own[key]:
                raise ArtifactError(
                    f"the state of a stream is of another {key}: {_difference(state.get(key), own[key])}"
                )
        self.network.load_state_dict(below(tensors, "network."))
        restore_adam(self.optimizer, below(tensors, "adam."))
        self.users.restore(below(tensors, "users."))
        self.items.restore(below(tensors, "items."))
        for index, one in enumerate(self.frequencies):
            one.counts = tensors[f"frequency.{index}"].clone()
        self.generator.set_state(tensors["generator"])
        before = below(tensors, "before.")
        if before:
            users = visits_of(before["users"], before["user_frequency"])
            items = visits_of(before["items"], before["item_frequency"])
            self.before = (users, items, before["labels"])
        if self.past is not None:
            self.past.rows, self.past.seen = tensors["past"].clone(), int(state["seen"])
        self.steps, self.interactions = int(state["steps"]), int(state["interactions"])


def _dims(side: Side, visits: Visits) -> Tensor:
    """(B,) numbers in the embedding of every row."""
    if side.sizes is None:
        return torch.full_like(visits.rows, side.dim)
    return torch.tensor(SIZES)[side.sizes[visits.rows].long()]


def _difference(theirs: Any, ours: Any) -> str:
    """Which keys differ, for people."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        keys = [key for key in sorted({*theirs, *ours}) if theirs.get(key) != ours.get(key)]
        return "; ".join(f"{key} was {theirs.get(key)!r}, is {ours.get(key)!r}" for key in keys)
    return f"it was {theirs!r}, is {ours!r}"
