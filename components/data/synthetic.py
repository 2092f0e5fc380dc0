"""A synthetic world with planted structure, written as the CSV files that a user would bring.

Every item has a *theme* (hiking, baking, …), a *level* (for beginners … for professionals) and a *style* (vintage,
rugged, …). A user is faithful to one style, stays with a theme for a while, drifts to a related one, and climbs the
levels of each theme as experience grows. So the next item can be foretold from the whole sequence, far better than from
popularity or from the last item alone. Popularity follows Zipf's law, hence most items have few interactions; their
words, which tell theme, level and style, say what the counts cannot. Domains share users, tastes and words, not items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.data import synthetic_pictures, synthetic_words
from components.data.synthetic_words import DOMAINS, LEVELS, STYLES, THEMES
from components.errors import ConfigError, StorageError, UnknownNameError
from components.schema import IMAGE, ITEM_ID, RATING, TIMESTAMP, USER_ID

IntArray = NDArray[np.int64]

SOURCE_SHARE: Final = 0.5  # size of the pre-training domains, relative to the first one
SHORTEST: Final = 5  # interactions of a user at least
STAY: Final = 0.72  # chance to stay with the theme
RELATED: Final = 0.6  # chance that a new theme is the related one and not one of the user's own
ZIPF: Final = 0.8  # popularity of the item of rank r is r ** -ZIPF
LEVEL_PENALTY: Final = 2.5  # utility lost per level above or below the user's own
STYLE_GAIN: Final = 3.5  # utility of the user's own style
STRAY: Final = 0.08  # chance that a user ignores all taste and takes what is popular
BAD_ROWS: Final = 0.01  # unusable or repeated rows, relative to the good ones
PICTURED: Final = 0.97  # items that have a picture
AT_ONCE: Final = 128  # users that are simulated together; bounds memory
START: Final = 1_640_995_200  # 2022-01-01
DAY: Final = 86_400


@dataclass(frozen=True)
class Taste:
    """What the items of a domain are like: (N,) theme, level and style, and the popularity weight."""

    theme: IntArray
    level: IntArray
    style: IntArray
    popularity: NDArray[np.float64]


@dataclass(frozen=True)
class Population:
    """The users of all domains: (U,) style, and (U, themes) how much each likes each theme."""

    style: IntArray
    likes: NDArray[np.float64]


@dataclass(frozen=True)
class Domain:
    """One domain: the truth about its items, and its log in time order within each user.

    Attributes:
        name: a key of ``synthetic_words.DOMAINS``.
        taste: the truth, for tests; no file holds it.
        users: (I,) user rows.
        items: (I,) item rows.
        timestamps: (I,) seconds.
        ratings: (I,) 1 to 5.
    """

    name: str
    taste: Taste
    users: IntArray
    items: IntArray
    timestamps: IntArray
    ratings: IntArray


def make_world(
    *, num_users: int = 1500, num_items: int = 1800, domains: Sequence[str] = ("gear", "books", "films"), seed: int = 7
) -> list[Domain]:
    """Simulate every domain; a pure function of its arguments.

    Args:
        num_users: users of the first domain; the others have fewer of the same users.
        num_items: items of the first domain.
        domains: keys of ``synthetic_words.DOMAINS``; the first is the target, the others are for pre-training.
        seed: source of every choice.

    Raises:
        ConfigError: a size is too small, or no domain is named.
        UnknownNameError: a domain that has no words.
    """
    _check(num_users, num_items, domains)
    population = _population(num_users, np.random.default_rng([seed, 0]))
    world = []
    for place, name in enumerate(domains):
        share = SOURCE_SHARE if place else 1.0
        generator = np.random.default_rng([seed, 1, list(DOMAINS).index(name)])
        taste = _taste(int(num_items * share), generator)
        world.append(_simulate(name, taste, population, int(num_users * share), generator))
    return world


def write_world(
    folder: Path,
    *,
    num_users: int = 1500,
    num_items: int = 1800,
    domains: Sequence[str] = ("gear", "books", "films"),
    seed: int = 7,
    pictures: bool = True,
) -> list[Domain]:
    """Simulate the world and write ``DOMAIN/interactions.csv``, ``DOMAIN/items.csv`` and ``DOMAIN/images/*.png``.

    The same arguments give the same bytes. About one row in a hundred is unusable or repeated, as in real logs.

    Args:
        folder: where to write; files of the same names are replaced.
        num_users: users of the first domain.
        num_items: items of the first domain.
        domains: keys of ``synthetic_words.DOMAINS``; the first is the target.
        seed: source of every choice.
        pictures: draw the items, too.

    Returns:
        The truth behind the files.

    Raises:
        StorageError: the folder cannot be written.
        ConfigError: a size is too small, or no domain is named.
    """
    world = make_world(num_users=num_users, num_items=num_items, domains=domains, seed=seed)
    for domain in world:
        generator = np.random.default_rng([seed, 2, list(DOMAINS).index(domain.name)])
        target = Path(folder) / domain.name
        try:
            (target / "images").mkdir(parents=True, exist_ok=True)
            _write_interactions(domain, target / "interactions.csv", generator)
            _write_items(domain, target, generator, pictures)
        except OSError as error:
            raise StorageError(f"{target}: the synthetic world cannot be written there ({error})") from error
    return world


def _check(num_users: int, num_items: int, domains: Sequence[str]) -> None:
    if num_users < 20 or num_items < 60:
        raise ConfigError(f"the world needs at least 20 users and 60 items, got {num_users} and {num_items}")
    if not domains:
        raise ConfigError(f"the world needs at least one domain of {', '.join(DOMAINS)}")
    for name in domains:
        if name not in DOMAINS:
            raise UnknownNameError("domain", name, DOMAINS)


def _population(num_users: int, generator: np.random.Generator) -> Population:
    likes = generator.dirichlet(np.full(len(THEMES), 0.15), size=num_users)
    return Population(generator.integers(len(STYLES), size=num_users), likes)


def _taste(num_items: int, generator: np.random.Generator) -> Taste:
    cells = generator.permutation(num_items)  # spreads items evenly over themes, levels and styles
    theme, rest = cells % len(THEMES), cells // len(THEMES)
    popularity = generator.permutation(np.arange(1, num_items + 1) ** -ZIPF)
    return Taste(theme, rest % len(LEVELS), rest // len(LEVELS) % len(STYLES), popularity)


def _simulate(
    name: str, taste: Taste, population: Population, num_users: int, generator: np.random.Generator
) -> Domain:
    chosen = np.sort(generator.permutation(len(population.style))[:num_users])
    lengths = np.minimum(SHORTEST + generator.geometric(0.2, size=num_users) - 1, len(taste.theme) // 4)
    starts = np.cumsum(lengths) - lengths
    item = np.empty(lengths.sum(), dtype=np.int64)
    by_length = np.argsort(lengths, kind="stable")  # users of alike length are simulated together
    for begin in range(0, num_users, AT_ONCE):
        rows = by_length[begin : begin + AT_ONCE]
        style, likes = population.style[chosen[rows]], population.likes[chosen[rows]]
        for step, taken in enumerate(_walk(taste, style, likes, lengths[rows].max(), generator)):
            active = lengths[rows] > step
            item[starts[rows[active]] + step] = taken[active]
    user = np.repeat(chosen, lengths)
    fits = taste.style[item] == population.style[user]
    ratings = np.clip(np.round(3.2 + 1.2 * fits + generator.normal(0, 0.8, len(item))), 1, 5).astype(np.int64)
    return Domain(name, taste, user, item, _times(user, generator), ratings)


def _walk(
    taste: Taste,
    style: IntArray,
    likes: NDArray[np.float64],
    steps: int,
    generator: np.random.Generator,
) -> Iterator[IntArray]:
    """Yield (U,) the item of every user, step by step. No user takes an item twice."""
    rows = np.arange(len(style))
    theme = _choose(likes, generator)
    level = np.zeros_like(likes, dtype=np.int64)  # (U, themes) experience
    taken = np.zeros((len(style), len(taste.theme)), dtype=bool)
    log_popularity = np.log(taste.popularity)
    for _ in range(steps):
        distance = np.abs(taste.level[None, :] - level[rows, theme][:, None])
        liked = STYLE_GAIN * (taste.style[None, :] == style[:, None]) - LEVEL_PENALTY * distance
        liked = np.where(taste.theme[None, :] == theme[:, None], liked, -12.0)
        liked[generator.random(len(style)) < STRAY] = 0.0
        utility = liked + log_popularity + generator.gumbel(size=liked.shape)
        item = np.where(taken, -np.inf, utility).argmax(1)
        taken[rows, item] = True
        yield item
        level[rows, theme] = np.minimum(level[rows, theme] + (generator.random(len(style)) < 0.8), len(LEVELS) - 1)
        theme = _drift(theme, likes, generator)


def _drift(theme: IntArray, likes: NDArray[np.float64], generator: np.random.Generator) -> IntArray:
    """(U,) the theme of the next step: the same, the related one, or another that the user likes."""
    stays = generator.random(len(theme)) < STAY
    related = generator.random(len(theme)) < RELATED
    other = np.where(related, (theme + 1) % len(THEMES), _choose(likes, generator))
    return np.where(stays, theme, other)


def _choose(likes: NDArray[np.float64], generator: np.random.Generator) -> IntArray:
    """(U,) one theme per user, drawn by its weight."""
    borders = np.cumsum(likes, axis=1)
    drawn: IntArray = (generator.random((len(likes), 1)) * borders[:, -1:] > borders).sum(1)
    return drawn


def _times(users: IntArray, generator: np.random.Generator) -> IntArray:
    """(I,) seconds, strictly increasing within each user; users arrive over a year."""
    gaps = generator.exponential(6 * DAY, size=len(users)).astype(np.int64) + 60
    first = np.flatnonzero(np.diff(users, prepend=-1))
    gaps[first] = generator.integers(0, 365 * DAY, size=len(first))
    total = np.cumsum(gaps)
    before = np.repeat(total[first] - gaps[first], np.diff(np.append(first, len(users))))
    times: IntArray = START + total - before
    return times


def item_id(domain: str, row: int) -> str:
    """The id that the files use for an item row."""
    return f"{domain}-{row + 1:05d}"


def user_id(row: int) -> str:
    """The id that the files use for a user row, the same in every domain."""
    return f"u{row + 1:06d}"


def _write_interactions(domain: Domain, path: Path, generator: np.random.Generator) -> None:
    """The log in the order of time, with some bad rows in between."""
    good = pl.DataFrame(
        {
            USER_ID: [user_id(row) for row in domain.users.tolist()],
            ITEM_ID: [item_id(domain.name, row) for row in domain.items.tolist()],
            TIMESTAMP: [str(second) for second in domain.timestamps.tolist()],
            RATING: [str(rating) for rating in domain.ratings.tolist()],
        }
    )
    good = good[np.argsort(domain.timestamps, kind="stable")]
    count = max(4, int(len(good) * BAD_ROWS))
    duplicate: dict[str, str | None] = {}
    damage = ({USER_ID: None}, {ITEM_ID: None}, {TIMESTAMP: "yesterday"}, duplicate)
    places = np.sort(generator.choice(len(good), size=count, replace=False))
    bad = [good.row(int(place), named=True) | damage[i % len(damage)] for i, place in enumerate(places)]
    rows = pl.concat([good, pl.DataFrame(bad, schema=good.schema)])
    order = np.argsort(np.concatenate([np.arange(len(good)), places]), kind="stable")
    rows[order].write_csv(path)


def _write_items(domain: Domain, folder: Path, generator: np.random.Generator, pictures: bool) -> None:
    taste = domain.taste
    rows = []
    for row, (theme, level, style) in enumerate(np.stack([taste.theme, taste.level, taste.style], axis=1).tolist()):
        name = item_id(domain.name, row)
        text = synthetic_words.describe(domain.name, theme, level, style, generator)
        pixels = synthetic_pictures.draw(theme, len(THEMES), style, generator)
        image = f"images/{name}.png" if pictures and generator.random() < PICTURED else None
        if image:
            synthetic_pictures.save(pixels, folder / image)
        rows.append({ITEM_ID: name, **vars(text), IMAGE: image})
    pl.DataFrame(rows).write_csv(folder / "items.csv")
