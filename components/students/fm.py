"""Factorization machine (Rendle 2010) over fields of users and items, split so that ranking is one matrix product.

With ``V = sum of v_f`` and ``c = sum of w_f + (|V|^2 - sum of |v_f|^2) / 2`` of each side (students.md, section 5)::

    score(u, i) = w_0 + c_u + c_i + <V_u, V_i> = <[V_u, 1, w_0 + c_u], [V_i, c_i, 1]>

``w_0 + c_u`` is the same for all items of a row: it changes no ranking, no softmax and no difference of scores, only
absolute scores. Losses that look at single scores (bce, gbce) learn it, the others leave it alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from components.data.batching import Batch
from components.layers.kept import Kept
from components.model import Catalog, ItemTensor, OutputHead, Ranker
from components.students.fields import (
    AttributeField,
    FieldConfig,
    Fields,
    IdField,
    UserFields,
    ValueTable,
    chosen_attributes,
)
from components.students.heads import ABSOLUTE_LOSSES, HeadConfig, make_head

ROWS_AT_ONCE = 65536  # item rows that are made together: their fields take F times as much memory


class FMConfig(HeadConfig, FieldConfig):
    """Arguments of the factorization machine."""


def fold(fields: Tensor) -> tuple[Tensor, Tensor]:
    """(..., F, D + 1) vectors and weights of one side's fields -> (..., D) V and (...) c.

    >>> V, c = fold(torch.tensor([[3.0, 0.0, 0.5], [0.0, 1.0, 0.0]]))  # v = (3, 0) and (0, 1), w = 0.5 and 0
    >>> V.tolist(), c.item()  # <v_1, v_2> = 0
    ([3.0, 1.0], 0.5)
    """
    return fold_parts(*parts(fields))


def parts(fields: Tensor) -> tuple[Tensor, Tensor]:
    """(..., F, D + 1) -> (..., F, D) vectors and (..., F) weights, in one operation: slices have dear gradients."""
    vectors, weights = torch.split(fields, [fields.shape[-1] - 1, 1], dim=-1)
    return vectors, weights[..., 0]


def fold_parts(vectors: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """`fold` of (..., F, D) vectors and (..., F) weights; a field alone makes no pairs."""
    if vectors.shape[-2] == 1:
        return vectors.squeeze(-2), weights.squeeze(-1)
    total = vectors.sum(dim=-2)
    pairs = (total.square().sum(dim=-1) - vectors.square().sum(dim=(-2, -1))) / 2
    return total, weights.sum(dim=-1) + pairs


def first_layer(vectors: Tensor, layer: nn.Linear | None) -> list[Tensor]:
    """This side's share of a network's first layer, of (..., F, D) vectors: [(..., H)], or nothing without layer."""
    return [] if layer is None else [layer(vectors.flatten(-2))]


class UserRows(nn.Module):
    """A batch -> (P, D + 2 [+ H]) states ``[V_u, 1, w_0 + c_u]``, then the user's share of a network's first layer.

    Args:
        fields: the user's fields.
        layer: (F * D) -> H; None in a plain factorization machine.
        absolute: let gradients reach ``w_0 + c_u``; in relative losses they are rounding errors, which Adam would
            blow up to full steps.
    """

    def __init__(self, fields: UserFields, layer: nn.Linear | None, absolute: bool) -> None:
        super().__init__()
        self.fields, self.layer, self.absolute = fields, layer, absolute
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, batch: Batch) -> Tensor:
        """See the class."""
        vectors, weights = parts(self.fields(batch))
        total, own = fold_parts(vectors, weights)
        constant = own + self.bias if self.absolute else (own + self.bias).detach()
        ends = torch.stack([torch.ones_like(constant), constant], dim=1)
        return torch.cat([total, ends, *first_layer(vectors, self.layer)], dim=1)


class ItemRows(nn.Module):
    """Item numbers -> (..., D + 2 [+ H]) rows ``[V_i, c_i, 1]``, then the item's share of a network's first layer.

    An `ItemEmbedding`. In evaluation the rows of all items are kept until a tensor changes.

    Args:
        fields: the item's fields.
        layer: (F * D) -> H; None in a plain factorization machine.
    """

    def __init__(self, fields: Fields, dim: int, layer: nn.Linear | None) -> None:
        super().__init__()
        self.fields, self.layer, self.num_items = fields, layer, fields.count
        self.dim = dim + 2 + (0 if layer is None else layer.out_features)
        self.kept: Kept[Tensor] = Kept()

    def forward(self, items: Tensor) -> Tensor:
        """(...) -> (..., D + 2 [+ H])."""
        if torch.is_grad_enabled():
            self.kept.forget()  # an optimizer's step may follow
        vectors, weights = parts(self.fields(items))
        total, own = fold_parts(vectors, weights)
        ends = torch.stack([own, torch.ones_like(own)], dim=-1)
        return torch.cat([total, ends, *first_layer(vectors, self.layer)], dim=-1)

    def rows(self, start: int, stop: int) -> Tensor:
        """(stop - start, D + 2 [+ H])."""
        if self.training or torch.is_grad_enabled():
            return self._make(start, stop)
        every = self.kept.get(partial(self._make, 1, self.num_items + 1), self.state_dict(keep_vars=True).values())
        return every[start - 1 : stop - 1]

    def _make(self, start: int, stop: int) -> Tensor:
        device = next(self.parameters()).device
        parts = range(start, stop, ROWS_AT_ONCE)
        return torch.cat([self(torch.arange(i, min(i + ROWS_AT_ONCE, stop), device=device)) for i in parts])


class FactorizationMachine(Ranker):
    """Ranks by the fields of a user and an item, two by two; a network may add to it, see `deepfm`.

    Args:
        user_rows: makes the states.
        item_rows: what they are compared with; registered here, used by `head`.
        head: turns states into scores.
        max_length: L, items of a history that count.
    """

    def __init__(self, user_rows: UserRows, item_rows: ItemRows, head: OutputHead, max_length: int) -> None:
        super().__init__()
        self.user_rows, self.item_rows, self.head = user_rows, item_rows, head
        self.num_items, self.max_length = item_rows.num_items, max_length

    def states(self, batch: Batch) -> Tensor:
        """(P, D + 2 [+ H])."""
        states: Tensor = self.user_rows(batch)
        return states

    def item_tensors(self) -> list[ItemTensor]:
        """The field of the item itself, its place among what users took, and the values of its attributes."""
        fields, prefix = self.item_rows.fields, "item_rows.fields.fields"
        tables = [
            ItemTensor(f"{prefix}.{place}.table.weight", field.table.weight, biases=1)
            if isinstance(field, IdField)
            else ItemTensor(f"{prefix}.{place}.values", field.values, attribute=fields.names[place - 1])
            for place, field in enumerate(fields.fields)
            if isinstance(field, IdField | AttributeField)
        ]
        history = self.user_rows.fields.history
        if history is not None:
            tables.append(ItemTensor("user_rows.fields.history.weight", history.weight, biases=1))
        return tables

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the saved tensors, however many values a field has."""
        for name, module in self.named_modules():
            if isinstance(module, AttributeField):
                module.make_room(len(tensors[f"{name}.table.weight"]))
        super().load_tensors(tensors)

    @staticmethod
    def part_of(name: str) -> str:
        """The part of a parameter: fields are embedding."""
        if name.startswith("head."):
            return "head"
        return "embedding" if ".fields." in name else "network"


def make_fields(catalog: Catalog, config: FieldConfig) -> tuple[UserFields, Fields]:
    """The fields of users and of items.

    Raises:
        ConfigError: the catalog lacks an attribute.
    """
    users = Fields(catalog.num_users, chosen_attributes(catalog, "user", config.user_fields), config)
    items = Fields(catalog.num_items, chosen_attributes(catalog, "item", config.item_fields), config)
    history = ValueTable(catalog.num_items, config.dim) if config.use_history else None
    return UserFields(users, history), items


def build(catalog: Catalog, config: FMConfig) -> FactorizationMachine:
    """Build a factorization machine; see `make_fields` for what it raises."""
    users, items = make_fields(catalog, config)
    item_rows = ItemRows(items, config.dim, None)
    head = make_head(catalog, config, item_rows)
    user_rows = UserRows(users, None, config.loss in ABSOLUTE_LOSSES)
    return FactorizationMachine(user_rows, item_rows, head, config.max_length)
