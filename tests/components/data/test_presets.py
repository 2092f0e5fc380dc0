"""Every preset reads small files of the same form as the public ones."""

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from components.data.catalog import read_items
from components.data.presets import PRESETS, get_preset
from components.data.readers import InputConfig, open_log, read_rows
from components.errors import UnknownNameError

ROWS = [("A1", "978", 5.0, 1_252_800_000), ("Б2", "979", 3.5, 1_300_000_000)]
ITEMS = {"978": "Toy Story (1995)", "979": "Léon (1994)"}


def movielens_1m(folder: Path) -> InputConfig:
    text = "".join(f"{user}::{item}::{rating:.0f}::{time}\n" for user, item, rating, time in ROWS)
    (folder / "ratings.dat").write_text(text.replace("::4::", "::3::"), encoding="utf8")
    movies = "".join(f"{item}::{title}::Animation|Comedy\n" for item, title in ITEMS.items())
    (folder / "movies.dat").write_text(movies, encoding="latin-1")
    return InputConfig(interactions="ratings.dat", items="movies.dat", preset="movielens-1m")


def movielens_csv(folder: Path) -> InputConfig:
    lines = ["userId,movieId,rating,timestamp", *(f"{u},{i},{r},{t}" for u, i, r, t in ROWS)]
    (folder / "ratings.csv").write_text("\n".join(lines))
    movies = ["movieId,title,genres", *(f'{item},"{title}",Animation|Comedy' for item, title in ITEMS.items())]
    (folder / "movies.csv").write_text("\n".join(movies))
    return InputConfig(interactions="ratings.csv", items="movies.csv", preset="movielens-csv")


def amazon_2018(folder: Path) -> InputConfig:
    names = ("reviewerID", "asin", "overall", "unixReviewTime")
    reviews = [{**dict(zip(names, row, strict=True)), "verified": True, "style": {"Size:": "L"}} for row in ROWS]
    write_lines(folder / "reviews.json.gz", reviews)
    items = [
        {"asin": item, "title": title, "category": ["Animation", "Comedy"], "also_buy": ["x"], "brand": "B&amp;C"}
        for item, title in ITEMS.items()
    ]
    write_lines(folder / "meta.json.gz", items)
    return InputConfig(interactions="reviews.json.gz", items="meta.json.gz", preset="amazon-2018")


def amazon_2023(folder: Path) -> InputConfig:
    reviews = [
        {
            "user_id": user,
            "parent_asin": item,
            "asin": "variant",
            "rating": rating,
            "timestamp": time * 1000,
            "images": [],
        }
        for user, item, rating, time in ROWS
    ]
    write_lines(folder / "reviews.jsonl", reviews)
    items = [
        {"parent_asin": item, "title": title, "categories": ["Animation", "Comedy"], "store": None}
        for item, title in ITEMS.items()
    ]
    write_lines(folder / "meta.jsonl", items)
    return InputConfig(interactions="reviews.jsonl", items="meta.jsonl", preset="amazon-2023")


def recbole(folder: Path) -> InputConfig:
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float", *("\t".join(map(str, row)) for row in ROWS)]
    (folder / "ml.inter").write_text("\n".join(lines))
    items = ["item_id:token\tmovie_title:token_seq\tclass:token_seq"]
    items += [f"{item}\t{title}\tAnimation Comedy" for item, title in ITEMS.items()]
    (folder / "ml.item").write_text("\n".join(items))
    return InputConfig(interactions="ml.inter", items="ml.item", preset="recbole")


def write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    body = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    path.write_bytes(gzip.compress(body) if path.suffix == ".gz" else body)


WRITERS = {
    "movielens-1m": movielens_1m,
    "movielens-csv": movielens_csv,
    "amazon-2018": amazon_2018,
    "amazon-2023": amazon_2023,
    "recbole": recbole,
}


def test_every_preset_is_tested() -> None:
    assert set(WRITERS) == set(PRESETS)


@pytest.mark.parametrize("name", WRITERS)
def test_the_log_of_a_public_data_set(tmp_path: Path, name: str) -> None:
    log = open_log(str(tmp_path), WRITERS[name](tmp_path))
    rows = pl.concat(read_rows(log.sources[0], log, tmp_path / "rejected"))
    assert rows["user_id"].to_list() == ["A1", "Б2"]
    assert rows["item_id"].to_list() == ["978", "979"]
    assert rows["timestamp"].to_list() == [time * 1_000_000 for *_, time in ROWS]
    assert rows["rating"].to_list() == pytest.approx([5.0, 4.0 if name == "movielens-1m" else 3.5], abs=1)
    assert not (tmp_path / "rejected").exists()


@pytest.mark.parametrize("name", WRITERS)
def test_the_items_of_a_public_data_set(tmp_path: Path, name: str) -> None:
    config = WRITERS[name](tmp_path)
    table = read_items(str(tmp_path), config, pl.Series("item_id", ["978", "979"]))
    title = "movie_title" if name == "recbole" else "title"
    assert table.frame[title].to_list() == list(ITEMS.values())
    assert all("Léon (1994)." in text and "Animation" in text for text in table.frame["text"][1:])
    assert "also_buy" not in table.frame.columns


def test_amazon_text_unescapes_the_brand(tmp_path: Path) -> None:
    table = read_items(str(tmp_path), amazon_2018(tmp_path), pl.Series("item_id", ["978"]))
    assert table.frame["text"].to_list() == ["Toy Story (1995). Animation, Comedy. B&C."]


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"known: amazon-2018, .*did you mean 'movielens-1m'"):
        get_preset("movielens1m")
    with pytest.raises(ValueError, match=r"unknown preset 'amazon'; known: movielens-1m"):
        InputConfig(interactions="x.csv", preset="amazon")
