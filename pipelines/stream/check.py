"""What a stream of ratings and a ranking run cannot have in common, looked at in the plain data of the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from components.embedding_size.config import StreamModelConfig
from pipelines.config_errors import KeyPath, unknown_key

OF_RANKING: Final = ("teachers", "distillation", "variants", "pretrain", "search", "features", "images", "start")
OWN: Final = frozenset({"task", "methods"})  # keys of a mode that the study sets itself


def stream_problems(data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """(key path, message) of everything that is wrong."""
    prepare = data.get("prepare")
    task = prepare.get("task", "ranking") if isinstance(prepare, dict) else "ranking"
    if task == "ratings":
        for section in OF_RANKING:
            if data.get(section):
                yield (section,), "belongs to a ranking run; a stream of ratings (prepare.task: ratings) has none"
    elif data.get("stream") is not None:
        yield ("stream",), "needs a log prepared as a stream; set `prepare: {task: ratings}`"
    yield from _wrong_modes(data)


def _wrong_modes(data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    section: Any = data
    for key in ("stream", "study", "modes"):
        section = section.get(key) if isinstance(section, dict) else None
    known = sorted(set(StreamModelConfig.model_fields) - OWN)
    for name, changes in section.items() if isinstance(section, dict) else ():
        for key in changes if isinstance(changes, dict) else ():
            if key not in known:
                yield ("stream", "study", "modes", name, key), unknown_key(str(key), known)
