"""What every model offers, so that training, distillation, evaluation and serving never ask which model it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel
from torch import Tensor, nn

from components.data.batching import Batch, TrainingBatches, Windows
from components.data.flat_sequences import Sequences
from components.layers.embedding import ItemEmbedding


class OutputHead(nn.Module, ABC):
    """Turns a state of the user side into scores of items. Scores are logits; higher is better."""

    @abstractmethod
    def loss(self, states: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of predicting `targets` (P,) from `states` (P, D); 0 for an empty batch."""

    @abstractmethod
    def scores(self, states: Tensor, candidates: Tensor) -> Tensor:
        """(P, C) differentiable scores of the items `candidates` (C,)."""

    @abstractmethod
    def block(self, states: Tensor, start: int, stop: int) -> Tensor:
        """(P, stop - start) scores of the consecutive items ``start .. stop - 1``, ``start >= 1``."""

    def ready(self, states: Tensor) -> Tensor:
        """What `block` may be called with instead of `states`, so that many blocks of the same states cost less."""
        return states

    def inner_product_vectors(self) -> Tensor | None:
        """(N, D) vectors of items 1..N whose products with a state are its scores; None where that is not all."""
        return None


@dataclass(frozen=True)
class Phase:
    """A part of training that has its own end; the best model so far begins the next one.

    Attributes:
        epochs: at most so many; None: as the training configuration says.
        patience: validations without a gain that end it; None: as the training configuration says.
        before_epoch: called by every worker with its rank and the number of workers before an epoch begins.
    """

    epochs: int | None = None
    patience: int | None = None
    before_epoch: Callable[[int, int], None] | None = None


@dataclass(frozen=True)
class ItemTensor:
    """A tensor of a model's state with one row per item, row 0 for PAD: what a new item needs a row of.

    Attributes:
        name: in the state.
        fitted: (N + 1, D), or (N + 1,) where a row is a single bias: what a row of a trained item is worth. Where other
            tensors have a part in it, as edges of a graph have, that is not the tensor itself.
        biases: how many of the last columns do not meet a state but are added to the score.
        scale: a new item's row in the state is `scale` times what `fitted` would say of it.
        attribute: name of the item attribute whose value numbers the tensor holds; ``""`` for a table of vectors.
    """

    name: str
    fitted: Tensor
    biases: int = 0
    scale: float = 1.0
    attribute: str = ""


class Ranker(nn.Module, ABC):
    """A model that ranks items for a user or a history: a student, a teacher or a baseline.

    Subclasses set `head`, `num_items` and `max_length` and implement `states`.

    Attributes:
        causal: whether one pass over a row gives the states of all its positions; otherwise each costs a sequence.
        trained_buffers: names of buffers that training changes; checkpoints and the best model hold them.
    """

    head: OutputHead
    num_items: int
    max_length: int
    causal: ClassVar[bool] = True
    trained_buffers: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def states(self, batch: Batch) -> Tensor:
        """(P, D) one state for every predicted position of the batch."""

    def independent_states(self, batch: Batch) -> Tensor:
        """(B, D) states after every row of an inference batch; no row changes another, to the last bit.

        One row at a time, since padding and the number of rows change the last bits. Models that can do better do.
        """
        found = [self.states(batch.alone(row)) for row in range(len(batch))]
        return found[0] if len(found) == 1 else torch.cat(found)

    def loss(self, batch: Batch) -> Tensor:
        """Mean supervised loss over the batch's positions."""
        return self.head.loss(self.states(batch), batch.targets)

    def scores(self, batch: Batch, candidates: Tensor) -> Tensor:
        """(P, C) scores of `candidates` (C,); with one position per row that is (B, C)."""
        return self.head.scores(self.states(batch), candidates)

    def all_scores(self, batch: Batch) -> Tensor:
        """(P, N + 1) scores of the whole catalogue, PAD = -inf."""
        states = self.states(batch)
        ranked = self.head.block(states, 1, self.num_items + 1)
        return torch.cat([ranked.new_full((len(ranked), 1), -torch.inf), ranked], dim=1)

    @torch.no_grad()
    def top_k(self, batch: Batch, k: int) -> tuple[Tensor, Tensor]:
        """(P, k) item numbers and their scores, best first."""
        values, items = self.all_scores(batch).topk(min(k, self.num_items), dim=1)
        return items, values

    def training_batches(self, sequences: Sequences, batch_size: int, windows: Windows, seed: int) -> TrainingBatches:
        """The training part in the form that this model learns from."""
        return TrainingBatches(sequences, self.max_length, batch_size, windows, seed)

    def phases(self) -> tuple[Phase, ...]:
        """The parts of its training, in order."""
        return (Phase(),)

    def parameter_parts(self) -> dict[str, int]:
        """Parameters, frozen ones too, by part: embedding, network, head and their total."""
        parts = {"embedding": 0, "network": 0, "head": 0}
        seen: set[int] = set()
        for name, parameter in self.named_parameters():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                parts[self.part_of(name)] += parameter.numel()
        return {"total": sum(parts.values()), **parts}

    def item_tensors(self) -> list[ItemTensor]:
        """Every tensor of the state that has a row per item; empty where new items cannot be given rows.

        Counting models are of that kind: nothing was counted of a new item.
        """
        return []

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the tensors of a saved model; models whose buffers have no fixed size override this."""
        self.load_state_dict(dict(tensors))

    @staticmethod
    def part_of(name: str) -> str:
        """The part ("embedding", "network" or "head") to which a parameter name belongs."""
        if name.startswith("head."):
            return "head"
        return "embedding" if "item_embedding" in name else "network"


@dataclass(frozen=True)
class Catalog:
    """What a model may know about the data when it is built.

    Attributes:
        num_items: N.
        num_users: U.
        counts: (N + 1,) training interactions per item, entry 0 is 0.
        sequences: the sequences, for models that count instead of learning; None when a saved model is rebuilt.
        features: named (N + 1, d) item features, such as ``{"text": …}``; row 0 belongs to PAD.
        attributes: one text per item, ``""`` where it has none, by attribute name, the most important name first; row
            ``i`` belongs to item ``i + 1``. None where the model does not read them, or is rebuilt.
        user_attributes: the same of users: one text per user by attribute name; row ``i`` belongs to user ``i + 1``.
    """

    num_items: int
    num_users: int
    counts: NDArray[np.int64]
    sequences: Sequences | None = None
    features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    attributes: Mapping[str, list[str]] | None = None
    user_attributes: Mapping[str, list[str]] | None = None


@runtime_checkable
class ReadsContent(Protocol):
    """A model that makes item vectors from content alone, also of items that it never saw."""

    def content_vectors(self, catalog: Catalog | None = None) -> Tensor:
        """(M, D) vectors of norm 1 of the items of `catalog`, row ``i`` of item ``i + 1``; of its own for None.

        Nothing that was learnt of a single item has a part in them: known and new items of equal content are equal.

        Raises:
            ConfigError: the catalog lacks the content that the model reads, or has it in another width.
        """


@dataclass(frozen=True)
class ModelSpec:
    """One entry of a registry such as ``STUDENTS``.

    Attributes:
        config: frozen pydantic model with unknown keys forbidden; its fields become keyword arguments of `build`.
        build: makes the model, ``build(catalog, config)``.
        reads_attributes: whether `build` wants the catalog's attributes, which cost memory.
        training: how it is usually trained, where the user says nothing: keys of the training configuration.
        item_embedding: gives the learnt item vectors of a built model; None where it has none of its own per item.
    """

    config: type[BaseModel]
    build: Callable[[Catalog, Any], Ranker]
    reads_attributes: bool = False
    training: Mapping[str, Any] = field(default_factory=dict)
    item_embedding: Callable[[Ranker], ItemEmbedding] | None = None

    def make(self, catalog: Catalog, arguments: Mapping[str, Any]) -> Ranker:
        """Validate `arguments` and build the model."""
        return self.build(catalog, self.config.model_validate(dict(arguments)))
