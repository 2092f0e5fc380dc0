"""An exported artifact that answers in the users' own item ids; the command line and the endpoint both ask it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.approximate import SAMPLE, ApproximateScorer, Recall, drawn_histories
from components.artifacts.format import REMEDY, read_json, verify
from components.artifacts.growth import grown_model
from components.artifacts.models import ModelConfig, load_model, read_model_config
from components.artifacts.tables import read_attributes, read_table, titles
from components.catalog_filters import CatalogFilters, Filter, ItemAttributes
from components.errors import ArtifactError, UserError
from components.explanations import influences
from components.inference import Scorer
from components.model import ItemTensor
from components.schema import (
    ATTRIBUTES_FILE,
    CONFIG_FILE,
    COUNT,
    ITEM_ID,
    ITEMS,
    ITEMS_FILE,
    METRICS_FILE,
    MODEL_FILE,
    PAD,
)
from components.scores_kept import check_scores

IntArray = NDArray[np.int64]
Retrieval = Literal["exact", "faiss"]
MIN_RECALL: Final = 0.95  # of approximate retrieval, below which it is refused
HISTORIES_FILE: Final = "histories.parquet"  # optional: user_id, user, items; only where the export was asked for it
POPULARITY: Final = "popularity"  # what stands in for a model where no item of a history is known


@dataclass(frozen=True)
class Cause:
    """An item of the history that moved a recommended item's score.

    Attributes:
        change: the score without it is lower by so much; negative where it spoke against the recommended item.
    """

    item_id: str
    title: str | None
    change: float


@dataclass(frozen=True)
class ScoredItem:
    """One recommended item.

    Attributes:
        because: what moved its score most, strongest first; None where the query did not ask.
    """

    item_id: str
    score: float
    title: str | None = None
    because: tuple[Cause, ...] | None = None


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
    """One question: the best `k` items after `history`.

    Attributes:
        user: number of the user, 0 where unknown.
        filter: which items may be recommended; None for all.
        explain: say of each item which items of the history moved its score, see `components.explanations`.
    """

    history: Sequence[str]
    k: int = 10
    exclude_seen: bool = True
    user: int = 0
    filter: Filter | None = None
    explain: bool = False


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
        attributes: what items can be filtered by.
        recall: of approximate retrieval; None where search is exact.

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
        path = self.folder / ATTRIBUTES_FILE
        has_attributes = ATTRIBUTES_FILE in listed
        self.attributes = ItemAttributes(read_attributes(path, self.num_items) if has_attributes else pl.DataFrame())
        self._filters = CatalogFilters(self.attributes, self._numbers)
        self._approximate: ApproximateScorer | None = None
        self.recall: Recall | None = None

    def _read_items(self) -> None:
        table = read_table(self.folder / ITEMS_FILE, [ITEM_ID, COUNT])
        self.item_ids: list[str] = table[ITEM_ID].cast(pl.String).to_list()
        self.num_items = len(self.item_ids)
        if self.num_items != self._scorer.model.num_items:
            model_items = self._scorer.model.num_items
            path = self.folder / ITEMS_FILE
            raise ArtifactError(f"{path}: {self.num_items} items, the model ranks {model_items}; {REMEDY}")
        self.titles = titles(table)
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
        other._filters = CatalogFilters(self.attributes, other._numbers)  # new items have no attributes
        other._counts = np.concatenate([self._counts, np.zeros(len(ids), self._counts.dtype)])
        if self._approximate is not None:
            other._approximate = ApproximateScorer(other._scorer)
        return other

    def search_approximately(self, min_recall: float) -> None:
        """From now on rank candidates alone, see `components.approximate`; but exactly where a query has a filter.

        Raises:
            UserError: that is not possible with this model, or it finds less than `min_recall`.
        """
        approximate = ApproximateScorer(self._scorer)
        recall = self._measured(approximate)
        if recall.recall < min_recall:
            raise UserError(f"{recall}, less than --min-recall {min_recall:.1%}; lower it, or leave --retrieval exact")
        self._approximate, self.recall = approximate, recall

    def _measured(self, approximate: ApproximateScorer) -> Recall:
        """Over the histories that the artifact carries, else over drawn ones."""
        if HISTORIES_FILE in self.manifest["files"]:
            stored = read_table(self.folder / HISTORIES_FILE, [ITEMS])[ITEMS].head(SAMPLE).to_list()
            return approximate.measure([np.array(items, dtype=np.int32) for items in stored], "of stored users")
        return approximate.measure(drawn_histories(self._counts), "drawn by popularity")

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
        groups: dict[tuple[bool, int], list[int]] = {}
        for i, query in enumerate(queries):
            if len(numbers[i]):
                groups.setdefault(self._company(query), []).append(i)
        answers: dict[int, tuple[IntArray, NDArray[np.float32]]] = {}
        for chosen in groups.values():
            items, scores = self._ranked([queries[i] for i in chosen], [numbers[i] for i in chosen])
            answers |= {i: (items[row], scores[row]) for row, i in enumerate(chosen)}
        return [self._shown(query, numbers[i], answers.get(i)) for i, query in enumerate(queries)]

    def _company(self, query: Query) -> tuple[bool, int]:
        """Queries of equal company are ranked together: what is approximate depends on `k`, what is exact does not."""
        return query.exclude_seen, query.k if self._approximate is not None and query.filter is None else 0

    def _ranked(
        self, queries: Sequence[Query], histories: Sequence[NDArray[np.int32]]
    ) -> tuple[IntArray, NDArray[np.float32]]:
        """(B, k) items and scores of queries of one company; `k` is the largest of theirs."""
        k, exclude_seen = min(max(query.k for query in queries), self.num_items), queries[0].exclude_seen
        users = [query.user for query in queries]
        if self._approximate is not None and queries[0].filter is None:
            return self._approximate.top_k(histories, k, exclude_seen=exclude_seen, users=users)
        among = [None if query.filter is None else self._filters.mask(query.filter) for query in queries]
        return self._scorer.top_k(histories, k, exclude_seen=exclude_seen, users=users, among=among)

    def knows(self, item_id: str) -> bool:
        """Whether the catalogue holds the item."""
        return item_id in self._numbers

    def _known(self, history: Sequence[str]) -> NDArray[np.int32]:
        numbers = self._numbers
        return np.array([numbers[item_id] for item_id in history if item_id in numbers], dtype=np.int32)

    def _shown(
        self, query: Query, history: NDArray[np.int32], answer: tuple[IntArray, NDArray[np.float32]] | None
    ) -> Recommendation:
        unknown = self.unknown_items(query.history) if len(history) < len(query.history) else []
        if answer is None:
            items = self._popular(query)
            scores = self._counts[items - 1]
        else:
            items, scores = answer[0][: query.k], answer[1][: query.k]
            left = int((items != PAD).sum())
            items, scores = items[:left], scores[:left]
        ids, titles = self.item_ids, self.titles
        triples = zip(items.tolist(), scores.tolist(), self._causes(query, history, items), strict=True)
        shown = [ScoredItem(ids[i - 1], score, titles[i - 1], why) for i, score, why in triples]
        return Recommendation(shown, unknown, POPULARITY if answer is None else None)

    def _popular(self, query: Query) -> IntArray:
        """Numbers of the most frequent items: they are numbered by frequency, so these are the first ones."""
        if query.filter is None:
            return np.arange(1, min(query.k, self.num_items) + 1)
        return np.flatnonzero(self._filters.mask(query.filter))[: query.k]

    def _causes(self, query: Query, history: NDArray[np.int32], items: IntArray) -> Sequence[tuple[Cause, ...] | None]:
        if not query.explain:
            return [None] * len(items)
        found = influences(self._scorer, history, items.tolist(), query.user)
        return [tuple(self._cause(one.number, one.change) for one in few) for few in found]

    def _cause(self, number: int, change: float) -> Cause:
        return Cause(self.item_ids[number - 1], self.titles[number - 1], change)

    def item(self, item_id: str) -> tuple[str | None, dict[str, list[str]]] | None:
        """Title and attributes of an item; None where the catalogue does not hold it."""
        number = self._numbers.get(item_id)
        return None if number is None else (self.titles[number - 1], self.attributes.of(number))

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
