from __future__ import annotations

from pathlib import Path

import pytest

from components.recommender import Recommender
from serve.backend import as_served
from serve.errors import ApiError
from serve.models import Models, bucket
from tests.tiny_artifact import write_artifact


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    recommender = Recommender(write_artifact(tmp_path_factory.mktemp("models") / "artifact"))
    return Models(as_served(recommender, "v0001"), as_served(recommender, "v0002"), 0.25)


def test_nothing_answers_while_it_loads() -> None:
    with pytest.raises(ApiError) as caught:
        Models().pick("ann")
    assert caught.value.status_code == 503


def test_the_candidate_gets_its_share_and_the_same_users(models: Models) -> None:
    keys = [f"user-{number}" for number in range(4000)]
    trying = {key for key in keys if models.pick(key) is models.candidate}
    assert 0.22 < len(trying) / len(keys) < 0.28
    wider = Models(models.incumbent, models.candidate, 0.5)
    assert trying < {key for key in keys if wider.pick(key) is models.candidate}


@pytest.mark.parametrize(("share", "version"), [(0.0, "v0001"), (1.0, "v0002")])
def test_none_and_all(models: Models, share: float, version: str) -> None:
    moved = Models(models.incumbent, models.candidate, share)
    assert {moved.pick(key).version for key in ["", *map(str, range(500))]} == {version}


def test_a_version_is_found_by_name(models: Models) -> None:
    assert models.named("v0002") is models.candidate
    with pytest.raises(ApiError, match="v0001, v0002"):
        models.named("v0009")


def test_buckets_cover_their_range() -> None:
    found = [bucket(str(number)) for number in range(50_000)]
    assert min(found) >= 0
    assert 9_000 < max(found) < 10_000


def test_a_release_without_a_version_goes_by_its_tensors(tmp_path: Path) -> None:
    recommender = Recommender(write_artifact(tmp_path / "artifact"))
    assert recommender.name.endswith(as_served(recommender).version)


def test_requests_without_a_key_meet_the_incumbent(models: Models) -> None:
    assert models.pick("") is models.incumbent
