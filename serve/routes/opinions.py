"""``POST /v1/opinions``: which teacher likes which item after a history, from the run's offline annotations."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from components.artifacts.opinions import OPINIONS_FILE, FloatTable, Opinion, opinions_of, read_opinions
from components.recommender import Recommender
from serve.backend import Backend
from serve.errors import ApiError
from serve.routes.common import ERRORS
from serve.schema import ErrorResponse, Identifier
from serve.settings import MAX_HISTORY

MAX_ITEMS: Final = 100


class OpinionsRequest(BaseModel):
    """Items to ask about, and after which history."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        coerce_numbers_to_str=True,
        json_schema_extra={"examples": [{"history": ["item-1", "item-2"], "items": ["item-3"]}]},
    )

    history: list[Identifier] = Field(max_length=MAX_HISTORY, description="item ids, oldest first; the last 50 count")
    items: list[Identifier] = Field(min_length=1, max_length=MAX_ITEMS, description="item ids to ask about")
    model: Identifier | None = Field(default=None, description="a loaded version by name")


class TeacherOpinion(BaseModel):
    """One teacher on one item.

    Attributes:
        teacher: its name in the run.
        position: 1 is the item closest to the history among all that are not in it.
        nearest: the id of the history's item that it is closest to.
        similarity: cosine to that item, -1 to 1.
    """

    teacher: str
    position: int
    nearest: str
    similarity: float


class ItemOpinions(BaseModel):
    """What the teachers think of one item; teachers that know nothing of it are left out."""

    item_id: str
    opinions: list[TeacherOpinion]


class OpinionsResponse(BaseModel):
    """The items as they were asked for."""

    model: str
    teachers: list[str]
    num_items: int
    items: list[ItemOpinions]


def router(backend: Backend) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["information"], responses={**ERRORS, 404: {"model": ErrorResponse}})

    @routes.post("/v1/opinions", response_model=OpinionsResponse)
    async def opinions(request: OpinionsRequest) -> JSONResponse:
        """How close each item is to the history for each teacher: by its item vectors, which are not its ranking."""
        models = backend.models
        model = models.pick_incumbent() if request.model is None else models.named(request.model)
        known = model.recommender
        digest = known.manifest["files"].get(OPINIONS_FILE)
        if digest is None:
            raise ApiError(404, "this artifact carries no teachers' opinions; export a run with teachers to have them")
        rows = await asyncio.to_thread(_loaded, known.folder / OPINIONS_FILE, digest)
        items = await asyncio.to_thread(_asked, known, rows, request)
        body = {"model": model.name, "teachers": list(rows), "num_items": known.num_items, "items": items}
        return JSONResponse(body)

    return routes


def _asked(known: Recommender, rows: dict[str, FloatTable], request: OpinionsRequest) -> list[dict[str, Any]]:
    history = [number for number in map(known.number, request.history) if number is not None]
    items = [known.number(item_id) or 0 for item_id in request.items]
    by_teacher = {name: opinions_of(table, history, items) for name, table in rows.items()}
    return [
        {
            "item_id": item_id,
            "opinions": [
                _shown(known, name, found) for name, answers in by_teacher.items() if (found := answers[place])
            ],
        }
        for place, item_id in enumerate(request.items)
    ]


def _shown(known: Recommender, teacher: str, opinion: Opinion) -> dict[str, Any]:
    nearest = known.item_ids[opinion.nearest - 1]
    return {
        "teacher": teacher,
        "position": opinion.position,
        "nearest": nearest,
        "similarity": round(opinion.similarity, 4),
    }


@lru_cache(maxsize=4)
def _loaded(path: Path, digest: str) -> dict[str, FloatTable]:
    """The file, read when somebody asks first; `digest` tells it from a later one at the same place."""
    return read_opinions(path)
