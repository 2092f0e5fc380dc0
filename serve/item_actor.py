"""One process that reads texts of new items for all replicas, so that not every replica holds language models."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import ray
from ray.exceptions import ActorDiedError, RayError
from torch import Tensor

from components.errors import DistilrecError, StageError
from serve.growing import Growing
from serve.item_source import ItemEncoder, ItemKeeping
from serve.item_store import ItemStore

KEPT: Final = 8  # results of calls


class Reader:
    """Holds the encoder; Ray runs it as an actor, one call after the other.

    The latest results are kept: a client whose time was up sends the same texts again, to any replica.
    """

    def __init__(self, encoder: ItemEncoder) -> None:
        self.encoder = encoder
        self._latest: dict[str, dict[str, Tensor]] = {}  # oldest first

    def vectors(self, texts: list[Mapping[str, str]]) -> dict[str, Tensor]:
        """See `ItemEncoder.vectors`."""
        key = json.dumps([dict(text) for text in texts], sort_keys=True)
        found = self._latest.pop(key, None)
        self._latest[key] = self.encoder.vectors(texts) if found is None else found
        if len(self._latest) > KEPT:
            del self._latest[next(iter(self._latest))]
        return self._latest[key]


class SharedReader:
    """Asks the actor, which the first texts start and which all replicas share by its name.

    Args:
        encoder: what it reads with.
    """

    def __init__(self, encoder: ItemEncoder) -> None:
        self.encoder = encoder
        self._actor: Any = None

    async def __call__(self, texts: Sequence[Mapping[str, str]]) -> dict[str, Tensor]:
        """(M, d_k) vectors by teacher.

        Raises:
            DistilrecError: the run is damaged, or the actor cannot be started or died again.
        """
        try:
            try:
                return await self._ask(texts)
            except ActorDiedError:  # its starter was another replica that is gone
                self._actor = None
                return await self._ask(texts)
        except DistilrecError:
            raise
        except RayError as error:
            self._actor = None
            raise StageError(f"the process that reads texts failed: {str(error).splitlines()[0]}") from error

    async def _ask(self, texts: Sequence[Mapping[str, str]]) -> dict[str, Tensor]:
        if self._actor is None:
            self._actor = await asyncio.to_thread(self._started)
        found: dict[str, Tensor] = await self._actor.vectors.remote(list(texts))
        return found

    def _started(self) -> Any:
        """The actor. It lives as long as the one who started it keeps this first handle."""
        options = {"name": f"distilrec-items-{self.encoder.teachers[:16]}", "get_if_exists": True, "num_cpus": 0}
        return ray.remote(Reader).options(**options).remote(self.encoder)


def growing(keeping: ItemKeeping) -> Growing:
    """New items of a replica under Ray."""
    encode = None if keeping.encoder is None else SharedReader(keeping.encoder)
    return Growing(ItemStore(keeping.store), keeping.encoder, keeping.why_no_text, encode)
