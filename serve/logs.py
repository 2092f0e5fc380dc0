"""JSON log lines: one per request, and one per failure. Never a key, a history, a user or a body."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Mapping
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Final

from components.errors import DistilrecError
from serve.record import Record
from serve.settings import Settings

PARENT: Final = "distilrec"  # of the loggers of all parts
LOGGER: Final = f"{PARENT}.serve"
MAX_BYTES: Final = 50_000_000  # of one file; then it is renamed, and the oldest of `KEPT` is dropped
KEPT: Final = 4
SHOWN: Final = 200  # characters of a message or a path
QUOTING: Final = (LookupError, ValueError)  # their messages quote the data that they met, which may be a history


class JsonLines(logging.Formatter):
    """One JSON object per line."""

    def __init__(self, replica: str) -> None:
        super().__init__()
        self._replica = replica

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        fields: Mapping[str, Any] = getattr(record, "fields", {})
        line = {"time": stamp(record.created), "level": record.levelname.lower(), "replica": self._replica, **fields}
        if not fields:
            line["message"] = record.getMessage()
        if record.exc_info and record.exc_info[1]:
            line |= {"cause": told(record.exc_info[1])}
        return json.dumps(line, ensure_ascii=False)


def stamp(seconds: float) -> str:
    """A time of day in UTC, to the millisecond."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"


def open_log(settings: Settings, replica: str) -> None:
    """Let this process write its log to ``log_folder/replica-NAME.jsonl``, or to standard error.

    Raises:
        OSError: the folder cannot be written.
    """
    logger = logging.getLogger(PARENT)
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if settings.log_folder:
        folder = Path(settings.log_folder)
        folder.mkdir(parents=True, exist_ok=True)
        name = f"replica-{re.sub('[^A-Za-z0-9_-]', '_', replica)}.jsonl"
        handler = RotatingFileHandler(folder / name, maxBytes=MAX_BYTES, backupCount=KEPT, encoding="utf-8")
    handler.setFormatter(JsonLines(replica))
    for old in logger.handlers[:]:
        logger.removeHandler(old)
        old.close()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


class AccessLog:
    """The lines about requests.

    Args:
        settings: whether there is a line per request; failures are always told.
    """

    def __init__(self, settings: Settings) -> None:
        self._logger = logging.getLogger(LOGGER)
        self._on = settings.access_log == "json"

    def request(self, record: Record, method: str, path: str, status: int, seconds: float) -> None:
        """A request was answered."""
        if self._on:
            fields = {**_about(record, method, path), "status": status, "ms": round(seconds * 1000, 2)}
            self._logger.info("request", extra={"fields": fields})

    def failure(self, record: Record, method: str, path: str, error: BaseException) -> None:
        """A request failed by our fault: the error and where it happened, in one line."""
        self._logger.error("failure", extra={"fields": {**_about(record, method, path), **told(error)}})


def told(error: BaseException) -> dict[str, Any]:
    """An error, where it happened, and its message unless that may quote a request."""
    frames = [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)]
    return {"error": type(error).__name__, "message": _message(error), "traceback": frames}


def spoken(error: BaseException) -> str:
    """An error in words, for reports and reasons; without its message where that may quote a request."""
    return str(error) if isinstance(error, DistilrecError) else f"{type(error).__name__}: {_message(error)}"


def _message(error: BaseException) -> str:
    return "(not shown: it may quote the request)" if isinstance(error, QUOTING) else str(error)[:SHOWN]


def _about(record: Record, method: str, path: str) -> dict[str, Any]:
    about = {"request_id": record.request_id, "method": method, "path": path[:SHOWN]}
    return {**about, "version": record.version, "key": record.key}
