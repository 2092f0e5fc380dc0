"""Small factorization machines with random tables, and a forward pass that takes one pair and one field at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.data.batching import Batch, history_batch
from components.model import Catalog
from components.students import STUDENTS
from components.students.fm import FactorizationMachine

NUM_ITEMS, NUM_USERS, MAX_LENGTH = 9, 5, 4
ATTRIBUTES = {"brand": ["a", "b", "a", "", "b", "a", "rare", "c", "c"], "color": ["red", "blue", "red"] * 3}
USER_ATTRIBUTES = {"city": ["x", "y", "x", "", "y"]}
ALL_FIELDS = {"item_fields": ["brand", "color"], "user_fields": ["city"]}
COUNTS = np.array([0, 9, 8, 7, 6, 5, 4, 3, 2, 0])
CATALOG = Catalog(NUM_ITEMS, NUM_USERS, COUNTS, attributes=ATTRIBUTES, user_attributes=USER_ATTRIBUTES)
HISTORIES, USERS = [[1, 2, 3], [7], [4, 4, 9, 1, 2, 8], []], [1, 4, 2, 0]


def make(kind: str, seed: int = 0, catalog: Catalog = CATALOG, **arguments: Any) -> FactorizationMachine:
    """A model whose tables, weights included, are random and not small."""
    torch.manual_seed(seed)
    model = STUDENTS[kind].make(catalog, {"dim": 6, "max_length": MAX_LENGTH, **arguments})
    assert isinstance(model, FactorizationMachine)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.7)
            if name.endswith("table.weight") or name.endswith("history.weight"):
                parameter[0].zero_()
    return model


def batch(histories: list[list[int]] = HISTORIES, users: list[int] = USERS) -> Batch:
    return history_batch(histories, MAX_LENGTH, users)


def every_position(history: list[int], user: int) -> Batch:
    """One row in which every position is predicted, as in training."""
    every = torch.arange(len(history))
    return replace(batch([history], [user]), positions=every, instances=every)


def naive_fields(model: FactorizationMachine, history: list[int], user: int, item: int) -> tuple[list[Tensor], float]:
    """The vectors of all fields of one pair, the user's first, and the sum of their weights."""
    state = model.state_dict()
    rows = [_row(state, "user_rows.fields.fields.fields", place, user) for place in _places(state, "user_rows")]
    if "user_rows.fields.history.weight" in state:
        table, recent = state["user_rows.fields.history.weight"], history[-MAX_LENGTH:]
        rows.append(sum((table[taken] for taken in recent), torch.zeros_like(table[0])) / max(len(recent), 1))
    rows += [_row(state, "item_rows.fields.fields", place, item) for place in _places(state, "item_rows")]
    return [row[:-1] for row in rows], sum(float(row[-1]) for row in rows)


def naive_fm(model: FactorizationMachine, history: list[int], user: int, item: int) -> float:
    """``w_0 + sum of w_f + sum over all pairs of <v_f, v_f'>`` (students.md, section 5), of all fields alike."""
    vectors, weights = naive_fields(model, history, user, item)
    bias = float(model.user_rows.bias.detach())
    return bias + weights + sum(float(left @ right) for left, right in combinations(vectors, 2))


def _places(state: Mapping[str, Tensor], side: str) -> list[int]:
    return sorted(
        {int(name.split(".table")[0].split(".")[-1]) for name in state if name.startswith(side) and ".table" in name}
    )


def _row(state: Mapping[str, Tensor], prefix: str, place: int, number: int) -> Tensor:
    values = state.get(f"{prefix}.{place}.values")
    return state[f"{prefix}.{place}.table.weight"][number if values is None else int(values[number])]
