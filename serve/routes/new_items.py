"""``POST /v1/items``: items that the student was not trained on, ranked at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Any, Final

import torch
from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse
from torch import Tensor

from components.artifacts.tables import TEXT_LENGTH
from components.data.item_text import NO_TEXT, as_text, item_text
from components.errors import DistilrecError, StorageError
from components.schema import TITLE
from serve.backend import Backend
from serve.errors import ApiError
from serve.growing import NO_STORE, Growing, finite
from serve.item_schema import NewItem, NewItemsRequest, NewItemsResponse
from serve.item_source import ItemSource
from serve.item_store import KeptItem
from serve.models import Served
from serve.routes.common import ERRORS
from serve.telemetry import Telemetry

NOT_RANKED: Final = "it is kept, but this model cannot rank it; the server's log has the reason"
READING: Final = 0.8  # of the time of a request, for texts
AGAIN_S: Final = 5
NORM: Final = 0.01  # by how much the length of a vector may differ from 1


def router(backend: Backend, telemetry: Telemetry, timeout_s: float = 10.0) -> APIRouter:
    """The route. While the application runs, models take up items of other replicas.

    Args:
        backend: whose models take the items.
        telemetry: where they are counted.
        timeout_s: what a request may take; reading texts is given most of it.
    """

    @asynccontextmanager
    async def following(_: FastAPI) -> AsyncIterator[None]:
        growing = backend.growing
        if growing is None:
            yield
            return
        await asyncio.to_thread(growing.look, backend.models.loaded)
        watching = asyncio.create_task(growing.watch(lambda: backend.models))
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

    routes = APIRouter(tags=["items"], responses=ERRORS, lifespan=following)

    @routes.post("/v1/items", response_model=NewItemsResponse)
    async def add(request: NewItemsRequest) -> JSONResponse:
        """Add items by their texts or by their teachers' vectors. They are on the disk before the answer.

        This replica ranks them from its answer on, others follow within about a second. The first texts may be
        answered with 503 and `loading`: language models are loaded; send them again after `Retry-After`.
        """
        served = backend.models.pick_incumbent()
        if backend.growing is None:
            raise ApiError(422, f"new items cannot be added: {NO_STORE}")
        try:
            return JSONResponse(await _added(backend, telemetry, served, request.items, READING * timeout_s))
        except StorageError as error:
            message = f"whether items were added is not known, send them again: {error}"
            raise ApiError(503, message, headers={"Retry-After": "1"}, code="store_down") from error

    return routes


def information(growing: Growing | None, served: Served) -> dict[str, Any]:
    """The body of `NewItemsInformation`."""
    growth = served.growth
    counts = {"added": growth.added, "missing": len(growth.missing)}
    if growing is None:
        return {"text": [], "vectors": {}, "why_not": NO_STORE, **counts}
    source = growing.source(served)
    columns = growing.text_columns(source)
    why_not = source.why_not or (None if columns else f"texts cannot be read: {_why_no_text(growing)}")
    return {"text": columns, "vectors": source.dims, "why_not": why_not, **counts}


async def _added(
    backend: Backend, telemetry: Telemetry, served: Served, items: Sequence[NewItem], patience_s: float
) -> dict[str, Any]:
    growing = backend.growing
    assert growing is not None
    source = await asyncio.to_thread(growing.source, served)
    if source.maker is None:
        raise ApiError(422, f"{served.name} cannot take new items: {source.why_not}")
    known = [item.item_id for item in items if served.recommender.knows(item.item_id)]
    columns = growing.text_columns(source)
    for place, item in enumerate(items):
        _check(item, f"items.{place}", source, columns, growing)
    new = [item for item in items if item.item_id not in set(known)]
    refused = {item.item_id: NO_TEXT for item in new if item.vectors is None and not _text(item, columns)}
    kept = await _kept(growing, [item for item in new if item.item_id not in refused], columns, patience_s)
    kept, failed = await asyncio.to_thread(finite, source, served, kept) if kept else ([], [])
    refused |= {item.item_id: "its vectors give rows that are no numbers" for item in failed}
    with telemetry.asking_store("items", "append") if kept else nullcontext():
        stored = await asyncio.to_thread(growing.store.add, source.teachers, kept) if kept else []
    telemetry.stored("items", len(stored))
    await asyncio.to_thread(growing.catch_up, backend.models.loaded)
    now = backend.models.pick_incumbent()
    refused |= {item_id: NOT_RANKED for item_id in stored if not now.recommender.knows(item_id)}
    return {
        "added": [item_id for item_id in stored if item_id not in refused],
        "known": known + [item.item_id for item in kept if item.item_id not in set(stored)],
        "refused": refused,
        "model": now.name,
        "num_items": now.recommender.num_items,
    }


def _check(item: NewItem, field: str, source: ItemSource, columns: Sequence[str], growing: Growing) -> None:
    """Refuse the whole call for an item that is not in the form that the model reads.

    Raises:
        ApiError: 422, with what is expected.
    """
    expected = ", ".join(f"{name} ({dim})" for name, dim in source.dims.items())
    if item.vectors is None:
        if not columns:
            message = f"texts cannot be read: {_why_no_text(growing)}; send `vectors` of {expected}"
            raise ApiError(422, message, f"{field}.text")
        unknown = [name for name in item.text if name not in columns]
        if unknown:
            message = f"no text column {unknown[0]!r}; there are: {', '.join(columns)}"
            raise ApiError(422, message, f"{field}.text.{unknown[0]}")
        return
    if set(item.vectors) != set(source.dims):
        raise ApiError(
            422, f"expected vectors of {expected}, got those of {', '.join(item.vectors)}", f"{field}.vectors"
        )
    for name, dim in source.dims.items():
        vector = item.vectors[name]
        if len(vector) != dim:
            raise ApiError(422, f"expected {dim} numbers, got {len(vector)}", f"{field}.vectors.{name}")
        norm = float(torch.tensor(vector, dtype=torch.float32).norm())
        if not abs(norm - 1) <= NORM:
            raise ApiError(422, f"expected a vector of norm 1, got one of {norm:.6g}", f"{field}.vectors.{name}")


def _why_no_text(growing: Growing) -> str:
    if growing.encoder is None:
        return growing.why_no_text
    return "this model was exported with other teachers than those of the run that is served"


async def _kept(
    growing: Growing, items: Sequence[NewItem], columns: Sequence[str], patience_s: float
) -> list[KeptItem]:
    """The items with their vectors, of which some are made from their texts now."""
    given: dict[str, Mapping[str, Tensor]] = {
        item.item_id: {name: torch.tensor(vector, dtype=torch.float32) for name, vector in item.vectors.items()}
        for item in items
        if item.vectors is not None
    }
    described = [item for item in items if item.vectors is None]
    if described:
        try:
            made = await asyncio.wait_for(growing.encoded([item.text for item in described]), patience_s)
        except DistilrecError as error:
            raise ApiError(503, f"nothing was added: the texts cannot be read now ({error})") from error
        except TimeoutError as error:  # what was begun goes on, and the same texts find its result
            message = "nothing was added yet: language models are being loaded, or read these texts; send them again"
            raise ApiError(503, message, headers={"Retry-After": str(AGAIN_S)}) from error
        given |= {item.item_id: vectors for item, vectors in zip(described, made, strict=True)}
    return [KeptItem(item.item_id, _title(item, columns), _texts(item), given[item.item_id]) for item in items]


def _text(item: NewItem, columns: Sequence[str]) -> str:
    return item_text(item.text.get(name) for name in columns or item.text)


def _texts(item: NewItem) -> dict[str, str]:
    return {name: as_text(text) for name, text in item.text.items()}


def _title(item: NewItem, columns: Sequence[str]) -> str | None:
    """What people are shown: as of the items of an artifact, the title, else the beginning of the text."""
    return item.title or _texts(item).get(TITLE) or _text(item, columns)[:TEXT_LENGTH] or None
