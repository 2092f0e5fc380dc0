from __future__ import annotations

import hashlib
import math
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from PIL import Image

from components.data.synthetic import BAD_ROWS, Domain, item_id, make_world, user_id, write_world
from components.data.synthetic_pictures import SIZE, draw
from components.data.synthetic_words import LEVELS, STYLES, THEMES, describe
from components.errors import ConfigError, StorageError, UnknownNameError

NUM_USERS, NUM_ITEMS = 500, 480


@pytest.fixture(scope="module")
def world() -> list[Domain]:
    return make_world(num_users=NUM_USERS, num_items=NUM_ITEMS, seed=3)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, num_users=120, num_items=80, seed=3)
    return folder


def paths(domain: Domain) -> list[NDArray[np.int64]]:
    return np.split(domain.items, np.flatnonzero(np.diff(domain.users)) + 1)


def hits(domain: Domain, histories: list[NDArray[np.int64]], *, taste: bool) -> float:
    """Share of users whose last item is among the ten best: by popularity, or by the nearest taste in front of it."""
    truth = domain.taste
    popularity = np.bincount(np.concatenate([path[:-1] for path in histories]), minlength=len(truth.theme))
    found = 0
    for path in histories:
        scores = popularity / popularity.max()
        if taste:
            past, last = path[:-1], path[-2]
            styles = np.bincount(truth.style[past], minlength=len(STYLES))
            climbed = truth.level[last] + 1
            scores = scores + 2.0 * (truth.theme == truth.theme[last]) + (truth.style == styles.argmax())
            scores = scores + 1.0 * (np.abs(truth.level - min(climbed, len(LEVELS) - 1)) == 0)
            scores[past] = -1
        found += path[-1] in np.argsort(-scores, kind="stable")[:10]
    return found / len(histories)


def test_the_nearest_taste_foretells_far_better_than_popularity(world: list[Domain]) -> None:
    histories = paths(world[0])
    assert hits(world[0], histories, taste=True) > 3 * hits(world[0], histories, taste=False)


def test_shuffled_users_have_no_taste(world: list[Domain]) -> None:
    items = np.random.default_rng(0).permutation(world[0].items)
    shuffled = np.split(items, np.flatnonzero(np.diff(world[0].users)) + 1)
    assert hits(world[0], shuffled, taste=True) < 1.3 * hits(world[0], shuffled, taste=False)


def test_tastes_drift_to_the_related_theme_and_climb(world: list[Domain]) -> None:
    truth, steps, rises = world[0].taste, Counter[int](), []
    for path in paths(world[0]):
        themes, levels = truth.theme[path], truth.level[path]
        steps.update(((themes[1:] - themes[:-1]) % len(THEMES)).tolist())
        same = themes[1:] == themes[:-1]
        rises += (levels[1:] - levels[:-1])[same].tolist()
    total = sum(steps.values())
    assert 0.5 < steps[0] / total < 0.8, "users stay"
    assert steps[1] > 2 * max(steps[i] for i in range(2, len(THEMES))), "or go to the next theme"
    assert np.mean(rises) > 0.3


def test_popularity_follows_zipfs_law(world: list[Domain]) -> None:
    counts = np.sort(np.bincount(world[0].items, minlength=NUM_ITEMS))[::-1]
    top = np.arange(1, 201)
    slope = np.polyfit(np.log(top), np.log(counts[:200]), 1)[0]
    assert -1.1 < slope < -0.35
    assert np.median(counts) < counts.mean()


def test_no_user_takes_an_item_twice_and_time_moves_on(world: list[Domain]) -> None:
    domain = world[0]
    assert all(len(set(path.tolist())) == len(path) >= 5 for path in paths(domain))
    later = np.diff(domain.timestamps)[np.diff(domain.users) == 0]
    assert later.min() > 0
    assert set(domain.ratings.tolist()) <= {1, 2, 3, 4, 5}


def test_domains_share_users_and_words_but_not_items(written: Path) -> None:
    logs = {
        name: pl.read_csv(written / name / "interactions.csv", infer_schema=False)
        for name in ("gear", "books", "films")
    }
    items = {name: pl.read_csv(written / name / "items.csv") for name in logs}
    assert set(items["gear"]["item_id"]).isdisjoint(items["books"]["item_id"])
    assert set(logs["books"]["user_id"].drop_nulls()) < set(logs["gear"]["user_id"].drop_nulls())
    vocabulary = {name: set(" ".join(frame["description"].drop_nulls()).split()) for name, frame in items.items()}
    assert len(vocabulary["gear"] & vocabulary["books"]) > 0.5 * len(vocabulary["books"])


def information(words: list[set[str]], labels: list[int]) -> float:
    """Mutual information (bits) between the presence of a word and the label, summed over the frequent words."""
    total, joint, margins = len(labels), Counter[tuple[str, int]](), Counter(labels)
    appears = Counter(word for row in words for word in row)
    for row, label in zip(words, labels, strict=True):
        joint.update((word, label) for word in row)
    return sum(
        count / total * math.log2(count * total / (appears[word] * margins[label]))
        for (word, label), count in joint.items()
        if appears[word] >= 5
    )


@pytest.mark.parametrize("kind", ["theme", "level", "style"])
def test_texts_reveal_the_taste(kind: str) -> None:
    generator = np.random.default_rng(0)
    tastes = generator.integers([len(THEMES), len(LEVELS), len(STYLES)], size=(600, 3)).tolist()
    texts = [describe("gear", theme, level, style, generator) for theme, level, style in tastes]
    words = [set(f"{text.title} {text.brand} {text.description}".lower().split()) for text in texts]
    labels = [taste[("theme", "level", "style").index(kind)] for taste in tastes]
    shuffled = generator.permutation(labels).tolist()
    assert information(words, labels) > 2 * information(words, shuffled)


def test_pictures_reveal_theme_and_style() -> None:
    generator = np.random.default_rng(0)
    kinds = [(theme, style) for theme in range(0, len(THEMES), 2) for style in range(len(STYLES))]
    reference = [draw(theme, len(THEMES), style, generator).reshape(-1, 3).mean(0) for theme, style in kinds]
    right = 0
    for theme, style in kinds:
        color = draw(theme, len(THEMES), style, generator).reshape(-1, 3).mean(0)
        closest = int(np.argmin([np.abs(color / color.sum() - other / other.sum()).sum() for other in reference]))
        right += kinds[closest][0] == theme
    assert right > 0.8 * len(kinds)
    stripes = draw(0, len(THEMES), 0, generator).astype(float).mean(2)
    assert stripes.mean(1).std() > 5 * stripes.mean(0).std(), "style 0 is drawn in rows"


def test_pictures_are_small_files_and_some_are_missing(written: Path) -> None:
    images = pl.read_csv(written / "gear" / "items.csv")["image"]
    assert 0 < images.null_count() < 0.2 * len(images)
    first = written / "gear" / str(images.drop_nulls()[0])
    with Image.open(first) as picture:
        assert picture.size == (SIZE, SIZE)
    assert len(list((written / "gear" / "images").iterdir())) == len(images) - images.null_count()


def test_a_small_share_of_rows_is_bad(written: Path, world: list[Domain]) -> None:
    log = pl.read_csv(written / "gear" / "interactions.csv", infer_schema=False)
    good = log.filter(
        pl.col("user_id").is_not_null() & pl.col("item_id").is_not_null() & pl.col("timestamp").str.contains(r"^\d+$")
    )
    assert 0 < log.height - good.height < 0.02 * log.height
    assert good.height - good.unique().height >= 1, "an exact duplicate"
    assert good["timestamp"].cast(pl.Int64).is_sorted(), "a log is in the order of time"
    assert BAD_ROWS <= 0.05, "the default max_rejected of prepare"


def test_the_files_hold_what_was_simulated(tmp_path: Path) -> None:
    (domain,) = write_world(tmp_path, num_users=30, num_items=64, domains=["courses"], seed=1, pictures=False)
    log = pl.read_csv(tmp_path / "courses" / "interactions.csv", infer_schema=False).drop_nulls()
    pairs = set(log.select("user_id", "item_id").iter_rows())
    expected = zip(domain.users.tolist(), domain.items.tolist(), strict=True)
    assert pairs == {(user_id(user), item_id("courses", item)) for user, item in expected}
    items = pl.read_csv(tmp_path / "courses" / "items.csv", infer_schema=False)
    theme = list(THEMES)[domain.taste.theme[0]]
    assert items["category"][0] == f"Courses, {theme.capitalize()}"
    assert not list((tmp_path / "courses" / "images").iterdir())


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(str(file.relative_to(folder)).encode() + file.read_bytes())
    return total.hexdigest()


def test_same_seed_same_bytes_other_seed_other_world(written: Path, tmp_path: Path) -> None:
    write_world(tmp_path / "again", num_users=120, num_items=80, seed=3)
    write_world(tmp_path / "other", num_users=120, num_items=80, seed=4)
    assert digest(tmp_path / "again") == digest(written) != digest(tmp_path / "other")


def test_a_domain_does_not_depend_on_which_others_are_made(world: list[Domain]) -> None:
    alone = make_world(num_users=NUM_USERS, num_items=NUM_ITEMS, seed=3, domains=["gear"])[0]
    assert (alone.items == world[0].items).all()


def test_impossible_worlds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 20 users and 60 items, got 3 and 80"):
        make_world(num_users=3, num_items=80)
    with pytest.raises(UnknownNameError, match="did you mean 'books'"):
        make_world(domains=["book"])
    with pytest.raises(ConfigError, match="at least one domain"):
        make_world(domains=[])
    (tmp_path / "gear").write_text("a file stands where the folder should be")
    with pytest.raises(StorageError, match="gear"):
        write_world(tmp_path, num_users=30, num_items=64, domains=["gear"])
