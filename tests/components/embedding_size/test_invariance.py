"""What a policy can learn from: with one normalization over all rows nothing, with one per size something."""

from __future__ import annotations

import pytest
import torch

from components.embedding_size.config import NormMode
from components.embedding_size.esapn import EsapnSide
from tests.components.embedding_size.worlds import make_learner, make_world, run


def trial_difference(mode: NormMode) -> float:
    """Largest change of a logit when everybody who can be is enlarged for a trial, in float64."""
    learner = make_learner(bn_mode=mode)
    world = make_world(600, users=60, items=60)
    run(learner, world)
    learner.head.double()
    sides = []
    for side, rows in ((learner.users, world.users[:200]), (learner.items, world.items[:200])):
        assert isinstance(side, EsapnSide)
        side.network.double()
        visits = learner.frequencies[0].visit(rows)
        held = side.store.size_of(rows)
        parts = [part.double() for part in side.store.branches(visits.unique, learner.steps, learn=False)]
        asked = (held + 1).clamp(max=5)
        assert (asked != held).any()
        with torch.no_grad():
            sides.append([side._vectors(parts, visits, held, one, track=False) for one in (held, asked)])
    with torch.no_grad():
        before, after = (learner.head(sides[0][way], sides[1][way], track=False) for way in (0, 1))
    return float((before - after).abs().max())


def test_enlarging_changes_no_prediction_where_all_rows_are_normalized_together() -> None:
    assert trial_difference("selected") < 1e-9


@pytest.mark.parametrize("mode", ["branches", "group"])
def test_enlarging_changes_predictions_where_every_size_is_normalized_alone(mode: NormMode) -> None:
    assert trial_difference(mode) > 1e-2


@pytest.mark.parametrize(("mode", "learns"), [("selected", False), ("branches", True), ("group", True)])
def test_the_reward_depends_on_the_action_only_where_predictions_do(mode: NormMode, learns: bool) -> None:
    """The same interactions, once all enlarged and once none: the difference of rewards is all that teaches."""
    learner, world = make_learner(bn_mode=mode), make_world(600, users=60, items=60)
    run(learner, world)
    users, items, labels = learner._validation(50)
    found = []
    for push in (-50.0, 50.0):
        for side in (learner.users, learner.items):
            assert isinstance(side, EsapnSide)
            side.policy.output.weight.data.zero_()
            side.policy.output.bias.data = torch.tensor([0.0, push])  # never, or always
        vectors = learner.users.trial(users, learner.steps), learner.items.trial(items, learner.steps)
        assert vectors[0] is not None
        assert vectors[1] is not None
        with torch.no_grad():
            logits = learner.head(vectors[0], vectors[1], track=False)
        found.append((torch.sigmoid(logits[:, 0]) - labels) ** 2)
    difference = float((found[0] - found[1]).abs().max())
    assert (difference > 1e-3) == learns
    if not learns:
        assert difference < 1e-4  # rounding of float32
