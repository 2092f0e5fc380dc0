"""What every registered model promises; a model that joins `STUDENTS` or `TEACHERS` is tested without a word more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from components.artifacts.models import Family, load_model, save_model
from components.data.batching import Batch, TrainingBatches, history_batch
from components.errors import ConfigError
from components.inference import Scorer
from components.model import Catalog, ModelSpec, Ranker
from components.schema import PAD
from components.students import STUDENTS
from components.teachers import TEACHERS
from components.training.seeds import seed_everything
from tests.components.teachers.recformer.language_models import shared_bert
from tests.components.teachers.worlds import COLORS, planted
from tests.worlds import sequences

SMALL = {
    "dim": 16,
    "inner_dim": 32,
    "num_layers": 1,
    "num_experts": 2,
    "max_length": 8,
}  # where a model has such a field
VARIANTS: dict[str, list[dict[str, Any]]] = {  # arguments that are worth a run of their own
    "sasrec": [
        {"norm": "post"},
        {"norm": "pre"},
        {"loss": "sampled-softmax", "negatives": "popularity"},
        {"loss": "gbce", "num_negatives": 8},
        {"loss": "bce", "num_negatives": 1, "shared_negatives": False},
        {"loss": "bpr", "num_negatives": 4},
        {"compression": {"boundaries": [8, 16], "factor": 2}},
        {"compression": {"output": "flat", "num_blocks": 1, "factor": 2}},
        {"compression": {"output": "tied", "sharing": "ab", "factor": 2}, "num_layers": 3},
        {"compression": {"output": "tied", "rule": "frequency", "factor": 2}, "loss": "sampled-softmax"},
        {"compression": {"input": "full", "factor": 2}},
    ],
    "gru4rec": [
        {},
        {"num_layers": 2, "hidden_dim": 24},
        {"loss": "gbce", "num_negatives": 8},
        {"compression": {"rule": "frequency", "factor": 2}},
        {"compression": {"output": "full"}},
    ],
    "nextitnet": [
        {},
        {"dilations": [2], "num_repeats": 1, "kernel_size": 2},
        {"compression": {"sharing": "ab", "factor": 2}, "dilations": [1], "num_repeats": 3},
        {"compression": {"input": "full", "output": "full", "sharing": "cl"}},
        {"loss": "sampled-softmax", "num_negatives": 8},
    ],
    "caser": [
        {},
        {"use_users": False, "window": 3},
        {"loss": "bpr", "num_negatives": 4},
        {"compression": {"factor": 2}},
        {"compression": {"output": "full"}, "loss": "sampled-softmax", "num_negatives": 8},
    ],
    "fm": [
        {},
        {"item_fields": ["title"], "user_fields": ["taste"], "min_count": 1},
        {"loss": "bce", "num_negatives": 2, "shared_negatives": False},
        {"loss": "sampled-softmax", "negatives": "popularity"},
    ],
    "deepfm": [
        {},
        {"item_fields": ["title"], "user_fields": ["taste"], "min_count": 1, "max_values": 3},
        {"loss": "softmax", "hidden": [16]},
        {"loss": "bce", "num_negatives": 2, "shared_negatives": False},
        {"loss": "gbce", "num_negatives": 8},
        {"num_negatives": 8},
    ],
    "markov": [{}, {"window": 3}],
    # A user's targets share a state, so the loss ends at the log of their number; width 16 is slow to come near it.
    "lightgcn": [{"dim": 32}, {"num_layers": 3, "loss": "bpr"}, {"num_layers": 0, "loss": "bpr", "l2": 0.0}],
    "itemknn": [{}, {"neighbors": 3, "shrinkage": 0.0, "decay": 0.5}],
    "bert4rec": [
        {},
        {"norm": "pre", "mask_last": False, "mask_probability": 0.4},
        {"compression": {"output": "tied", "factor": 2}},
        {"compression": {"factor": 1}},
    ],
    "recguru": [
        {},
        {"reconstruction_weight": 0.0, "num_negatives": 1},
        {"compression": {"output": "tied", "factor": 2}},
    ],
    "recformer": [
        {"precision": "fp32", "freeze_words": False},
        {"precision": "fp32", "attention": "longformer", "window": 16, "batch_tokens": 300},
        {"precision": "fp32", "pooling": "avg"},
    ],
    "unim2rec": [{"mode": "inductive"}, {"mode": "transductive"}, {"whitening": True}, {"tune": "adaptor"}],
    "unisrec": [{"mode": "inductive"}, {"mode": "transductive"}, {"whitening": True}, {"tune": "adaptor"}],
}
BY_HEART = {"bert4rec": 200}  # epochs, of 50; a window hides an item or two per epoch and is judged at every position
HISTORIES = [[1, 5, 9, 13], [2], [3, 7, 11, 15, 19, 23], [24, 4]]


@dataclass(frozen=True)
class Subject:
    """One model under test."""

    family: Family
    kind: str
    spec: ModelSpec
    arguments: dict[str, Any]

    def make(self, *, seed: int = 0, dropout: bool = True) -> Ranker:
        arguments = dict(self.arguments)
        if not dropout:
            arguments |= {name: 0.0 for name in self.spec.config.model_fields if name.endswith("dropout")}
        seed_everything(seed)
        return self.spec.make(catalog(), arguments)

    def save(self, model: Ranker, folder: Path) -> bytes:
        folder.mkdir()
        save_model(model, folder, kind=self.kind, family=self.family, arguments=self.arguments, catalog=catalog())
        return b"".join(file.read_bytes() for file in sorted(folder.iterdir()))


def catalog() -> Catalog:
    sequences, known = planted()
    training = np.concatenate([sequences.training_items(row) for row in range(len(sequences))])
    counts = np.bincount(training, minlength=known.num_items + 1)
    taste = [COLORS[user % len(COLORS)] for user in range(known.num_users)]
    return replace(
        known,
        counts=counts,
        features={**known.features, "image": pictures(known.num_items)},
        user_attributes={"taste": taste},
    )


def pictures(num_items: int) -> NDArray[np.float32]:
    """Image vectors; every third item has none."""
    vectors = np.random.default_rng(5).normal(size=(num_items + 1, 6)).astype(np.float32)
    vectors[::3] = 0.0
    return vectors


def subjects() -> Iterator[Any]:
    families: list[tuple[Family, dict[str, ModelSpec]]] = [("student", STUDENTS), ("teacher", TEACHERS)]
    for family, registry in families:
        for kind, spec in registry.items():
            small = {name: value for name, value in SMALL.items() if name in spec.config.model_fields}
            for arguments in VARIANTS.get(kind, [{}]):
                shown = "-".join(f"{name}={value}" for name, value in arguments.items())
                yield pytest.param(Subject(family, kind, spec, small | arguments), id=f"{kind}-{shown}".rstrip("-"))


@pytest.fixture(params=subjects())
def subject(request: pytest.FixtureRequest) -> Subject:
    subject: Subject = request.param
    if "backbone" in subject.spec.config.model_fields:  # written only where it is needed
        return replace(subject, arguments=subject.arguments | {"backbone": shared_bert(), "num_layers": 1})
    return subject


@pytest.fixture
def model(subject: Subject) -> Ranker:
    return train(subject.make(), 3).eval()


def train(model: Ranker, epochs: int, batches: TrainingBatches | None = None) -> Ranker:
    """A few steps, so that scores are not those of the beginning; nothing for models that only count."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        return model
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    batches = batches or training_batches(model)
    for epoch in range(epochs):
        for windows in batches.epoch(epoch):
            optimizer.zero_grad()
            model.train().loss(batches.batch(windows)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model


def training_batches(model: Ranker) -> TrainingBatches:
    sequences, _ = planted()
    return TrainingBatches(sequences, model.max_length, 16)


def batch_of(model: Ranker, histories: list[list[int]]) -> Batch:
    users = list(range(1, len(histories) + 1))
    return history_batch(histories, model.max_length, users)


@torch.no_grad()
def scores_of(model: Ranker, batch: Batch) -> Tensor:
    return model.all_scores(batch)


def assert_alike(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_saving_and_loading_keeps_every_score(subject: Subject, model: Ranker, tmp_path: Path) -> None:
    subject.save(model, tmp_path / "artifact")
    loaded = load_model(tmp_path / "artifact")
    batch = batch_of(model, HISTORIES)
    assert torch.equal(scores_of(loaded, batch), scores_of(model, batch))
    assert loaded.parameter_parts() == model.parameter_parts()


def test_padding_does_not_change_scores(model: Ranker) -> None:
    batch = batch_of(model, [history[:4] for history in HISTORIES])
    row = batch.positions // batch.items.shape[1]
    wider = replace(batch, items=F.pad(batch.items, (0, 3)), positions=batch.positions + 3 * row)
    assert_alike(scores_of(model, wider), scores_of(model, batch))


def test_a_batch_gives_the_scores_of_its_rows_alone(model: Ranker) -> None:
    together = scores_of(model, batch_of(model, HISTORIES))
    for row, history in enumerate(HISTORIES):
        alone = history_batch([history], model.max_length, [row + 1])
        assert_alike(together[row], scores_of(model, alone)[0])


def test_of_a_history_that_is_too_long_the_last_items_count(model: Ranker) -> None:
    """BERT4Rec, whose window holds a MASK too, reads one item less than `max_length`."""
    users, last = [1, 2], [history[-5:] * 2 for history in ([1, 5, 9, 13, 17], [3, 7, 11, 15, 19])]
    long = [[2, 4, 6, 8] * 30 + history for history in last]
    assert all(len(history) >= model.max_length for history in last)
    found = scores_of(model, history_batch(long, model.max_length, users))
    assert_alike(found, scores_of(model, history_batch(last, model.max_length, users)))
    ranked, _ = Scorer(model).top_k([np.array(history, np.int32) for history in long], 24, users=users)
    assert all(set(history).isdisjoint(row.tolist()) for history, row in zip(long, ranked, strict=True))


def test_a_training_position_scores_like_the_history_up_to_it(model: Ranker) -> None:
    """So that states that teachers annotate, and what a student learns, are what serving will ask for."""
    batches = training_batches(model)
    batch = batches.batch(batches.epoch(0)[0])
    scores = scores_of(model, batch)
    for place, (row, position) in enumerate(zip(batch.rows.tolist(), batch.positions.tolist(), strict=True)):
        seen = batch.items[row, : position % batch.items.shape[1] + 1].tolist()
        alone = history_batch([seen], model.max_length, [int(batch.users[row])])
        assert_alike(scores[place], scores_of(model, alone)[0])


def test_the_same_seed_gives_the_same_bytes(subject: Subject, tmp_path: Path) -> None:
    first = subject.save(train(subject.make(seed=5), 2), tmp_path / "first")
    assert subject.save(train(subject.make(seed=5), 2), tmp_path / "second") == first
    other = train(subject.make(seed=6), 2)
    if other.parameter_parts()["total"]:
        assert subject.save(other, tmp_path / "other") != first


def test_scores_of_candidates_are_those_of_the_whole_catalog(model: Ranker) -> None:
    batch = batch_of(model, HISTORIES)
    for candidates in ([3], [7, 1, 24, 12], [5, 2, 5], list(range(1, 25))):
        assert_columns(model, batch, candidates)


def test_scores_of_candidates_at_every_position_of_a_training_row(model: Ranker) -> None:
    batches = training_batches(model)
    assert_columns(model, batches.batch(batches.epoch(0)[0]), [7, 1, 24, 12])


def assert_columns(model: Ranker, batch: Batch, candidates: list[int]) -> None:
    """S10."""
    chosen = torch.tensor(candidates)
    with torch.no_grad():
        scores = model.scores(batch, chosen)
    assert scores.shape == (len(batch.positions), len(candidates))
    assert_alike(scores, scores_of(model, batch)[:, chosen])


def heads() -> Iterator[Any]:
    """Every loss of every student: the loss decides which head it has."""
    for kind, spec in STUDENTS.items():
        field = spec.config.model_fields.get("loss")
        for loss in get_args(field.annotation) if field else ():
            yield pytest.param(kind, loss, id=f"{kind}-{loss}")


@pytest.mark.parametrize(("kind", "loss"), heads())
def test_candidates_are_columns_whatever_the_head(kind: str, loss: str) -> None:
    arguments = {name: value for name, value in SMALL.items() if name in STUDENTS[kind].config.model_fields}
    seed_everything(3)
    model = train(STUDENTS[kind].make(catalog(), {**arguments, "loss": loss}), 1).eval()
    assert_columns(model, batch_of(model, HISTORIES), [7, 1, 24, 7])


def test_blocks_of_items_add_up_to_the_catalog(model: Ranker) -> None:
    batch = batch_of(model, HISTORIES)
    with torch.no_grad():
        states = model.states(batch)
        blocks = [model.head.block(states, start, min(start + 7, 25)) for start in range(1, 25, 7)]
    assert_alike(torch.cat(blocks, dim=1), scores_of(model, batch)[:, 1:])


@pytest.mark.parametrize("block_items", [5, 1000])
def test_the_position_of_a_target_is_that_in_the_whole_ranking(model: Ranker, block_items: int) -> None:
    sequences, _ = planted()
    cases = sequences.cases("test")
    positions = Scorer(model, batch_size=8, block_items=block_items).positions(cases)
    for case, (target, position) in enumerate(zip(cases.targets.tolist(), positions.tolist(), strict=True)):
        history = history_batch([cases.history(case)], model.max_length, [int(cases.users[case])])
        scores = scores_of(model, history)[0, 1:]
        near = 1e-4 + 1e-4 * scores[target - 1].abs()  # equal up to rounding
        assert (scores > scores[target - 1] + near).sum() < position <= (scores >= scores[target - 1] - near).sum()


def test_padding_is_never_recommended(model: Ranker) -> None:
    histories = [*HISTORIES, []]
    assert (scores_of(model, batch_of(model, histories))[:, PAD] == -torch.inf).all()
    items, scores = model.top_k(batch_of(model, histories), 100)
    assert items.shape == (5, 24)
    assert (items != PAD).all()
    assert scores.isfinite().all()
    rows = [np.array(history, dtype=np.int32) for history in histories]
    served, _ = Scorer(model).top_k(rows, 10)
    assert (served != PAD).all()
    assert all(set(history).isdisjoint(row.tolist()) for history, row in zip(histories, served, strict=True))


def test_a_model_with_parameters_learns_a_tiny_set_by_heart(subject: Subject) -> None:
    model = subject.make(dropout=False)
    if not model.parameter_parts()["total"] or any(not p.requires_grad for p in model.parameters()):
        pytest.skip("it only counts, or is meant to start from pre-trained weights")
    batches = training_batches(model)
    batch = batches.batch(np.concatenate(batches.epoch(0)))
    before = model.loss(batch).item()
    train(model, BY_HEART.get(subject.kind, 50)).eval()
    assert model.loss(batch).item() < 0.5 * before
    best = scores_of(model, batch).argmax(1)
    with torch.no_grad():
        states = model.states(batch)
    # A model that cannot tell two positions apart (LightGCN: those of one user) may answer with the target of either.
    alike = (states[:, None] == states[None]).all(2)
    right = (alike & (best[:, None] == batch.targets[None])).any(1)
    assert right.float().mean() > 0.7


def test_loss_is_a_finite_scalar_and_nothing_for_nothing(model: Ranker) -> None:
    batches = training_batches(model)
    batch = batches.batch(batches.epoch(0)[0])
    assert model.loss(batch).shape == ()
    assert model.loss(batch).isfinite()
    assert model.head.loss(model.states(batch)[:0], batch.targets[:0]).item() == 0.0


def test_a_catalog_of_one_item_is_learnt_and_ranked(subject: Subject) -> None:
    """There is nothing to tell it from, which must not end in NaN."""
    rows = sequences([[1] * 5, [1] * 4, [1] * 3])
    vectors = {name: table[:2] for name, table in catalog().features.items()}
    lone = Catalog(1, 3, np.array([0, 6]), rows, vectors, {"title": ["red"]}, {"taste": ["red", "", "red"]})
    if refuses_one_item(subject):
        with pytest.raises(ConfigError, match=r"compression\..* the catalog has 1$"):
            subject.spec.make(lone, subject.arguments)
        return
    model = subject.spec.make(lone, subject.arguments)
    batches = model.training_batches(rows, 2, "last", 0)
    train(model, 2, batches)
    assert all(model.loss(batches.batch(windows)).isfinite() for windows in batches.epoch(0))
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    histories = [np.array(history, np.int32) for history in ([1, 1], [])]
    assert Scorer(model).top_k(histories, 2)[0].tolist() == [[PAD, PAD], [1, PAD]]


def refuses_one_item(subject: Subject) -> bool:
    """Several blocks need several items."""
    compression = subject.arguments.get("compression")
    if compression is None or compression.get("input") == compression.get("output") == "full":
        return False
    return bool(compression.get("num_blocks", 3) > 1)


def test_an_item_table_holds_a_learnt_vector_per_item(subject: Subject) -> None:
    if subject.spec.item_embedding is None:
        pytest.skip("it makes items of other things than a vector of their own")
    model = subject.make()
    table = subject.spec.item_embedding(model)
    items = torch.arange(1, 25)
    assert torch.equal(table(items), table.rows(1, 25))
    assert table(items).shape == (24, table.dim)
    table(items)[3].sum().backward()
    learnt = [name for name, value in model.named_parameters() if value.grad is not None and value.grad.any()]
    assert learnt
    assert all(model.part_of(name) == "embedding" for name in learnt)


def test_parts_add_up_to_all_parameters(model: Ranker) -> None:
    parts = model.parameter_parts()
    assert parts["total"] == parts["embedding"] + parts["network"] + parts["head"]
    assert parts["total"] == sum(parameter.numel() for parameter in model.parameters())


def test_an_unknown_argument_is_named(subject: Subject) -> None:
    with pytest.raises(ValidationError, match="no_such_argument"):
        subject.spec.make(catalog(), {"no_such_argument": 1})
