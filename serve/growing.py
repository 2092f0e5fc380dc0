"""Loaded models take up the items that were added while serving: in a thread, swapped in as a whole.

An item is kept in the store first, with its teachers' vectors. Every replica looks there twice a second and makes
the rows for each of its models by that model's own projection; so does a replica that starts.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from components.errors import DistilrecError
from serve.item_source import ItemEncoder, ItemSource, item_source
from serve.item_store import ItemStore, KeptItem
from serve.models import Growth, Models, Served
from serve.trouble import Trouble

logger = logging.getLogger("distilrec.serve")
POLL_S: Final = 0.5
NO_STORE: Final = "they have no place to be kept; serve the folder of a run, or give --histories FOLDER"
NO_RUN: Final = "the artifact is not served from the folder of its run, which holds the encoders and teachers"

Encode = Callable[[Sequence[Mapping[str, str]]], Awaitable[dict[str, Tensor]]]


class Growing:
    """New items of one endpoint, as one replica sees them.

    Args:
        store: where they are kept.
        encoder: reads texts; None where only vectors can be taken.
        why_no_text: the reason for that.
        encode: how the encoder is called; in a thread of this process by default.
    """

    def __init__(
        self,
        store: ItemStore,
        encoder: ItemEncoder | None = None,
        why_no_text: str = NO_RUN,
        encode: Encode | None = None,
    ) -> None:
        self.store, self.encoder, self.why_no_text = store, encoder, why_no_text
        self._encode, self._turn = encode, threading.Lock()
        self._sources: WeakKeyDictionary[Served, ItemSource] = WeakKeyDictionary()  # they go with their models
        self._looking = Trouble(logger, "new items cannot be taken up from their store")

    def source(self, served: Served) -> ItemSource:
        """How a loaded model takes new items; read once per artifact, and files are read then."""
        source = self._sources.get(served)
        if source is None:
            run = None if self.encoder is None else self.encoder.run
            source = self._sources[served] = item_source(served.recommender, run)
        return source

    def text_columns(self, source: ItemSource) -> list[str]:
        """The columns of which a text is made; empty where texts cannot be read for this model."""
        usable = self.encoder is not None and source.maker is not None and self.encoder.teachers == source.teachers
        return list(self.encoder.columns) if self.encoder is not None and usable else []

    async def encoded(self, texts: Sequence[Mapping[str, str]]) -> list[dict[str, Tensor]]:
        """Vectors by teacher of every item, given as texts by column. The first call takes seconds: it loads models.

        Raises:
            DistilrecError: the run's folder is damaged.
        """
        assert self.encoder is not None
        if self._encode is not None:
            made = await self._encode(texts)
        else:
            made = await asyncio.to_thread(self.encoder.vectors, texts)
        return [{name: vectors[place] for name, vectors in made.items()} for place in range(len(texts))]

    def catch_up(self, models: Iterable[Served]) -> None:
        """Let loaded models take up what the store has beyond what they saw. It takes its time: call it in a thread.

        Raises:
            StorageError: the store cannot be read.
        """
        with self._turn:  # what arrives while a model grows is taken up together by the next turn
            last = self.store.last()
            for served in models:
                if served.growth.seen < last:
                    self._take_up(served, last)

    def look(self, models: Iterable[Served]) -> None:
        """The same, for whom nobody waits: a store that cannot be read is logged once, and models stay as they are."""
        with self._looking.kept():
            self.catch_up(models)

    async def watch(self, models: Callable[[], Models]) -> None:
        """Take up what other replicas added, until it is cancelled."""
        while True:
            await asyncio.to_thread(self.look, models().loaded)
            await asyncio.sleep(POLL_S)

    def _take_up(self, served: Served, last: int) -> None:
        """Let `served` rank the items up to number `last`. Those that it cannot rank are counted as missing."""
        source, recommender, growth = self.source(served), served.recommender, served.growth
        kept, others = self.store.between(growth.seen, last, source.teachers)
        if source.maker is None:
            kept, others = [], [*others, *(item.item_id for item in kept)]
        new = [item for item in kept if not recommender.knows(item.item_id)]
        usable, failed = finite(source, served, new) if new else ([], [])
        if usable:
            rows = source.rows(recommender, usable)
            try:
                recommender = recommender.grown([(item.item_id, item.title) for item in usable], rows)
            except (DistilrecError, ValueError):
                logger.exception("new items: %s does not take %d of them", served.name, len(usable))
                usable, failed = [], new
        left = growth.missing | set(others) | {item.item_id for item in failed}
        missing = frozenset(item_id for item_id in left if not recommender.knows(item_id))
        served.recommender, served.growth = recommender, Growth(last, growth.added + len(usable), missing)


def finite(source: ItemSource, served: Served, items: Sequence[KeptItem]) -> tuple[list[KeptItem], list[KeptItem]]:
    """The items whose rows are numbers, and the others."""
    rows = source.rows(served.recommender, items).values()
    fine = torch.stack([row.reshape(len(items), -1).isfinite().all(dim=1) for row in rows]).all(dim=0).tolist()
    good = [item for item, is_fine in zip(items, fine, strict=True) if is_fine]
    return good, [item for item, is_fine in zip(items, fine, strict=True) if not is_fine]
