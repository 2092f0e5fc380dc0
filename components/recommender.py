"""An exported artifact that answers in the users' own item ids; the command line and the endpoint both ask it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.artifacts.format import REMEDY, read_json, verify
from components.artifacts.growth import grown_model
from components.artifacts.models import ModelConfig, load_model, read_model_config
from components.errors import ArtifactError
from components.inference import Scorer
from components.model import ItemTensor
from components.schema import (
    CONFIG_FILE,
    COUNT,
    ITEM_ID,
    ITEMS_FILE,
    METRICS_FILE,
    MODEL_FILE,
    PAD,
    TEXT,
)
from components.scores_kept import check_scores

IntArray = NDArray[np.int64]
TITLE: Final = "title"
HISTORIES_FILE: Final = "histories.parquet"  # optional: user_id, user, items; only where the export was asked for it
POPULARITY: Final = "popularity"  # what stands in for a model where no item of a history is known
TEXT_LENGTH: Final = 120  # characters of an item's text that stand in for a missing title


@dataclass(frozen=True)
class ScoredItem:
    """One recommended item."""

    item_id: str
    score: float
    title: str | None = None


@dataclass(frozen=True)
class Recommendation:
    """The answer for one history.

    Attributes:
        items: best first; fewer than asked where the catalogue has no more.
        unknown_items: ids of the history that the catalogue does not hold, in their order; they were ignored.
        fallback: ``"popularity"`` where no known item was given and the most frequent items were returned, else None.
    """

    items: list[ScoredItem]
    unknown_items: list[str]
    fallback: str | None = None


@dataclass(frozen=True)
class Query:
    """One question: the best `k` items after `history`."""

    history: Sequence[str]
    k: int = 10
    exclude_seen: bool = True
    user: int = 0


class Recommender:
    """An exported artifact, ready to answer. Rankings do not depend on which queries are answered together.

    Args:
        folder: the artifact; every file is checked against its manifest first.
        device: where the model runs.

    Attributes:
        manifest: the artifact's manifest.
        config: what the model is.
        metrics: how it measured.
        num_items: items of the catalogue.

    Raises:
        ArtifactError: the artifact is corrupt or incomplete; the message names the file.
    """

    def __init__(self, folder: str | Path, *, device: str = "cpu") -> None:
        self.folder = Path(folder)
        self.manifest: dict[str, Any] = verify(self.folder)
        listed = self.manifest["files"]
        for name in (CONFIG_FILE, MODEL_FILE, ITEMS_FILE, METRICS_FILE):
            if name not in listed:
                raise ArtifactError(f"{self.folder / name}: missing; an artifact that serves has it; {REMEDY}")
        self.config: ModelConfig = read_model_config(self.folder)
        self.metrics = read_json(self.folder / METRICS_FILE)  # kept: the folder may vanish while the model serves
        self._scorer = Scorer(load_model(self.folder), device=device, reproducible=True)
        self._read_items()

    def _read_items(self) -> None:
        table = _read_table(self.folder / ITEMS_FILE, [ITEM_ID, COUNT])
        self.item_ids: list[str] = table[ITEM_ID].cast(pl.String).to_list()
        self.num_items = len(self.item_ids)
        if self.num_items != self._scorer.model.num_items:
            model_items = self._scorer.model.num_items
            path = self.folder / ITEMS_FILE
            raise ArtifactError(f"{path}: {self.num_items} items, the model ranks {model_items}; {REMEDY}")
        self.titles = _titles(table)
        self._numbers = {item_id: number for number, item_id in enumerate(self.item_ids, start=1)}
        self._counts = table[COUNT].cast(pl.Float32).to_numpy()

    @torch.no_grad()
    def item_tensors(self) -> list[ItemTensor]:
        """The tables of the model in which a new item needs a row; see `components.model.Ranker.item_tensors`."""
        return self._scorer.model.item_tensors()

    def grown(self, items: Sequence[tuple[str, str | None]], rows: Mapping[str, Tensor]) -> Recommender:
        """The same with more items behind the known ones, whose scores stay; this one goes on as it is.

        Args:
            items: (item id, title) of M items that it does not know.
            rows: (M, ...) rows by tensor of the model, as `components.item_maker.table_rows` makes them.

        Raises:
            StageError: a score of a known item would change, or a new item would score no number.
            ValueError: rows that do not fit the model.
        """
        model, config = grown_model(self._scorer.model, self.config, rows)
        check_scores(self._scorer.model, model)
        other = copy.copy(self)
        other.config, other._scorer = config, Scorer(model, device=self._scorer.device, reproducible=True)
        ids, titles = [item_id for item_id, _ in items], [title for _, title in items]
        other.item_ids, other.titles = [*self.item_ids, *ids], [*self.titles, *titles]
        other.num_items = len(other.item_ids)
        other._numbers = self._numbers | {item_id: self.num_items + place for place, item_id in enumerate(ids, start=1)}
        other._counts = np.concatenate([self._counts, np.zeros(len(ids), self._counts.dtype)])
        return other

    @property
    def name(self) -> str:
        """Name and version of the model, such as ``"prm-kd@1f0c5a7be2d4"``; the version is the hash of its tensors."""
        return model_name(self.manifest, self.config.kind)

    @property
    def parameters(self) -> dict[str, int]:
        """Trainable parameters of the model by part."""
        return self._scorer.model.parameter_parts()

    def number(self, item_id: str) -> int | None:
        """The number of an item, by which the artifact's tables name it; None where the catalogue lacks it."""
        return self._numbers.get(item_id)

    def unknown_items(self, item_ids: Sequence[str]) -> list[str]:
        """Those of `item_ids` that the catalogue does not hold, in their order."""
        return [item_id for item_id in item_ids if item_id not in self._numbers]

    def recommend(
        self, histories: Sequence[Sequence[str]], k: int = 10, exclude_seen: bool = True
    ) -> list[Recommendation]:
        """The best `k` items after each history of item ids, oldest first."""
        return self.answer([Query(history, k, exclude_seen) for history in histories])

    def answer(self, queries: Sequence[Query]) -> list[Recommendation]:
        """Answer queries together; each answer is the one that the query alone would get."""
        numbers = [self._known(query.history) for query in queries]
        answers: dict[int, tuple[IntArray, NDArray[np.float32]]] = {}
        for exclude_seen in (True, False):
            chosen = [i for i, q in enumerate(queries) if q.exclude_seen == exclude_seen and len(numbers[i])]
            if chosen:
                items, scores = self._scorer.top_k(
                    [numbers[i] for i in chosen],
                    min(max(queries[i].k for i in chosen), self.num_items),
                    exclude_seen=exclude_seen,
                    users=[queries[i].user for i in chosen],
                )
                answers |= {i: (items[row], scores[row]) for row, i in enumerate(chosen)}
        return [self._shown(query, answers.get(i)) for i, query in enumerate(queries)]

    def knows(self, item_id: str) -> bool:
        """Whether the catalogue holds the item."""
        return item_id in self._numbers

    def _known(self, history: Sequence[str]) -> NDArray[np.int32]:
        numbers = (self._numbers.get(item_id) for item_id in history)
        return np.array([number for number in numbers if number is not None], dtype=np.int32)

    def _shown(self, query: Query, answer: tuple[IntArray, NDArray[np.float32]] | None) -> Recommendation:
        unknown = self.unknown_items(query.history)
        if answer is None:  # items are numbered by frequency, so the most frequent ones are the first ones
            count = min(query.k, self.num_items)
            return Recommendation(self._items(range(1, count + 1), self._counts[:count]), unknown, POPULARITY)
        items, scores = answer[0][: query.k], answer[1][: query.k]
        left = int((items != PAD).sum())
        return Recommendation(self._items(items[:left], scores[:left]), unknown)

    def _items(self, items: Sequence[int] | range | IntArray, scores: NDArray[np.float32]) -> list[ScoredItem]:
        pairs = zip(items, scores.tolist(), strict=True)
        return [ScoredItem(self.item_ids[i - 1], score, self.titles[i - 1]) for i, score in pairs]

    def search(self, text: str, limit: int = 20) -> list[tuple[str, str | None]]:
        """(item id, title) of items whose id or title holds `text`, ignoring case, the most frequent ones first."""
        wanted = text.casefold()
        pairs = zip(self.item_ids, self.titles, strict=True)
        hits = ((i, t) for i, t in pairs if wanted in i.casefold() or (t is not None and wanted in t.casefold()))
        return [hit for hit, _ in zip(hits, range(limit), strict=False)]


def model_name(manifest: Mapping[str, Any], kind: str) -> str:
    """Name and version of an artifact's model; its kind where the manifest gives it no name."""
    model = manifest.get("model")
    name = model.get("name") if isinstance(model, dict) else None
    return f"{name or kind}@{manifest['files'][MODEL_FILE][:12]}"


def _read_table(path: Path, needed: list[str]) -> pl.DataFrame:
    try:
        table = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ArtifactError(f"{path}: not readable as Parquet ({error}); {REMEDY}") from error
    lacking = [name for name in needed if name not in table.columns]
    if lacking:
        raise ArtifactError(f"{path}: lacks the columns {', '.join(lacking)}; {REMEDY}")
    return table


def _titles(table: pl.DataFrame) -> list[str | None]:
    """An item's title, else the beginning of its text, else None."""
    columns = [pl.col(name).cast(pl.String).replace("", None) for name in (TITLE, TEXT) if name in table.columns]
    if not columns:
        return [None] * table.height
    return table.select(pl.coalesce(columns).str.slice(0, TEXT_LENGTH)).to_series().to_list()
