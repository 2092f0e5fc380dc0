"""One process reads texts for all replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import ray
import torch
from torch import Tensor

from components.errors import ArtifactError
from serve.growing import Growing
from serve.item_actor import KEPT, Reader, SharedReader, growing
from serve.item_source import ItemKeeping
from tests.growable_artifact import DIMS, WordEncoder


class Broken(WordEncoder):
    def vectors(self, texts: Sequence[Mapping[str, str]]) -> dict[str, Tensor]:
        raise ArtifactError("features: was made again")


def read(reader: SharedReader, *words: str) -> dict[str, Tensor]:
    return asyncio.run(reader([{"title": word} for word in words]))


@pytest.mark.ray
def test_replicas_share_a_process_that_may_die(ray_session: None, tmp_path: Path) -> None:
    encoder = WordEncoder(tmp_path)
    one, two = SharedReader(encoder), SharedReader(encoder)
    expected = encoder.vectors([{"title": "tent"}, {"title": "rope"}])
    for reader in (one, two, one, two, one):  # more than once each: the process must outlive a call
        found = read(reader, "tent", "rope")
        assert all(torch.equal(found[name], expected[name]) for name in DIMS)
    assert one._actor._actor_id == two._actor._actor_id
    ray.kill(one._actor)
    for reader in (two, one):
        assert torch.equal(read(reader, "tent")["words"][0], expected["words"][0])


def test_the_same_texts_are_read_once(tmp_path: Path) -> None:
    """A client whose time was up sends them again."""
    encoder = WordEncoder(tmp_path)
    reader = Reader(encoder)
    texts = [[{"title": f"word-{number}"}] for number in range(KEPT + 1)]
    first = reader.vectors(list(texts[0]))
    assert reader.vectors(list(texts[0])) is first
    for one in texts:
        reader.vectors(list(one))
    assert encoder.calls == KEPT + 1
    reader.vectors(list(texts[0]))  # the oldest one went
    assert encoder.calls == KEPT + 2


@pytest.mark.ray
def test_what_the_run_says_comes_through(ray_session: None, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="features: was made again"):
        read(SharedReader(Broken(tmp_path, {"teach/words": "broken"})), "tent")


def test_a_replica_without_a_run_has_no_reader(tmp_path: Path) -> None:
    made = growing(ItemKeeping(tmp_path / "items.sqlite", None, "no run here"))
    assert isinstance(made, Growing)
    assert (made.encoder, made.why_no_text) == (None, "no run here")
