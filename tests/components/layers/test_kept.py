from __future__ import annotations

import torch
from torch import Tensor, nn

from components.layers.kept import Kept


class Doubled(nn.Module):
    """Counts how often it doubles its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.kept: Kept[Tensor] = Kept()
        self.made = 0

    def forward(self, condition: object = None) -> Tensor:
        return self.kept.get(self._double, self.parameters(), condition)

    def _double(self) -> Tensor:
        self.made += 1
        return 2 * self.weight.detach()


def test_a_value_is_made_once_until_a_tensor_changes() -> None:
    module = Doubled().eval()
    assert module().tolist() == module().tolist() == [2.0, 2.0]
    assert module.made == 1
    module.load_state_dict({"weight": torch.full((2,), 3.0)})
    assert module().tolist() == [6.0, 6.0]
    module.weight = nn.Parameter(torch.full((2,), 4.0))
    assert module().tolist() == [8.0, 8.0]
    assert module.made == 3


def test_another_condition_makes_it_anew() -> None:
    module = Doubled().eval()
    for condition, made in ((True, 1), (True, 1), (False, 2), (True, 3)):
        module(condition)
        assert module.made == made


def test_it_is_forgotten_when_training_goes_on_and_not_when_it_ends() -> None:
    module = nn.Sequential(Doubled()).eval()
    inner = module[0]
    assert isinstance(inner, Doubled)
    for mode, made in ((False, 1), (False, 1), (True, 2)):
        inner()
        assert inner.made == made - (mode is True)
        module.train(mode)
        inner()
        assert inner.made == made


def test_it_adds_nothing_to_a_saved_model() -> None:
    assert list(Doubled().state_dict()) == ["weight"]
