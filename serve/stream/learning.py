"""The thread that learns from stored events, and the copy that answers meanwhile."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from components.artifacts.format import DIGEST, read_json, read_manifest
from components.data.ratings import RATINGS_FILE, RatingsConfig
from components.embedding_size.labels import binary_labels, class_labels
from components.errors import ArtifactError, DistilrecError
from components.streaming import RankingCopy, copy_for_ranking, read_learner
from components.training.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from serve.histories.sqlite_events import SqliteEvents
from serve.histories.store import Event, StoreDownError
from serve.stream.identities import Identities, read_items, read_users

POLL_S: Final = 0.1  # between two looks for events; what arrives meanwhile is learned together
SAVE_S: Final = 30.0  # between two checkpoints; after a kill, events behind the last one are learned again
CHECKPOINT: Final = "model"
logger = logging.getLogger("distilrec.serve")


@dataclass(frozen=True)
class Version:
    """What answers at one moment.

    Attributes:
        copy: ranks.
        users: how many it knows; later numbers are new.
        items: the same.
        number: counts the copies since the start.
        arrival: number of the last event that was learned.
    """

    copy: RankingCopy
    users: int
    items: int
    number: int
    arrival: int

    @property
    def name(self) -> str:
        """What answers call it."""
        return f"v{self.number}"


class Learning:
    """A streaming model that learns what a store holds, in the order of arrival, a micro-batch at a time.

    Ratings whose time lies before those that were learned are learned when they arrive: a stream does not go back.

    Args:
        artifact: a finished stream.
        folder: where events and checkpoints are kept.
        ratings: scale and threshold of the ratings.

    Raises:
        ArtifactError: the artifact or the checkpoint is damaged, or the checkpoint is of another artifact.
    """

    def __init__(self, artifact: Path, folder: Path, ratings: RatingsConfig) -> None:
        self.ratings = ratings
        self.events = SqliteEvents(folder)
        self._folder, self._origin = folder, str(read_manifest(artifact).get(DIGEST))
        self.learner = read_learner(artifact)
        self.users = Identities(read_users(artifact))
        ids, self.titles = read_items(artifact)
        self.items = Identities(ids)
        self.arrival = 0
        self.seen: dict[int, set[int]] = {}  # items that users rated here, by number
        self.learned, self.losses, self.right = 0, 0.0, 0  # of events since the start
        self._resume()
        self.version = self._copied(1)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stream-learner", daemon=True)
        self._saved = time.monotonic()

    def start(self) -> Learning:
        """Begin to learn."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Learn no more, and keep what was learned."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
            self.save()
        self.events.close()

    def full(self, event: Event) -> str:
        """Why an event cannot be taken: which side has no room for another id; ``""`` where it can."""
        limit = self.learner.config.max_entities
        for name, known, one in (("users", self.users, event.user_id), ("items", self.items, event.item_id)):
            if len(known) >= limit and known.find(one) is None:
                return name
        return ""

    def look(self) -> int:
        """Learn what has arrived, at most a batch of it, and let a new copy answer; returns how many events."""
        found = self.events.since(self.arrival, self.learner.config.batch_size)
        if found:
            self._learn([event for _, event in found])
            self.arrival = found[-1][0]
            self.version = self._copied(self.version.number + 1)
        return len(found)

    def save(self) -> None:
        """Write a checkpoint: a kill afterwards loses nothing, and what the store holds beyond it is learned again."""
        state = {
            "learner": self.learner.state(),
            "origin": self._origin,
            "arrival": self.arrival,
            "users": self.users.ids,
            "items": self.items.ids,
            "seen": {str(user): sorted(items) for user, items in self.seen.items()},
        }
        write_checkpoint(Checkpoint(self.learner.tensors(), state), self._folder / CHECKPOINT)
        self._saved = time.monotonic()

    def status(self) -> dict[str, Any]:
        """What the model has done here, as JSON."""
        learned = self.learned
        return {
            "version": self.version.name,
            "method": self.learner.method,
            "task": self.learner.config.task,
            "users": self.version.users,
            "items": self.version.items,
            "learned_events": self.version.arrival,
            "predicted_first": {
                "events": learned,
                "loss": self.losses / learned if learned else None,
                "accuracy": self.right / learned if learned else None,
            },
        }

    def _run(self) -> None:
        torch.set_num_threads(1)
        while not self._stop.is_set():
            try:
                found = self.look()
                if time.monotonic() - self._saved > SAVE_S:
                    self.save()
            except StoreDownError as error:
                logger.error("%s", error)
                found = 0
            except (DistilrecError, OSError):
                logger.exception("the stream stopped learning; it goes on answering")
                return
            if not found:
                self._stop.wait(POLL_S)

    def _learn(self, events: Sequence[Event]) -> None:
        rated, numbers = [], []
        for event in events:
            if event.value is not None and not self.full(event):  # another writer of the store may not have asked
                rated.append(event)
                numbers.append((self.users.number(event.user_id), self.items.number(event.item_id)))
        if not rated:
            return
        users, items = torch.tensor(numbers).unbind(1)
        predicted = self.learner.step(users, items, self._labels(rated))
        self.learned += len(rated)
        self.losses += float(predicted.losses.sum())
        self.right += int(predicted.correct.sum())
        for user, item in zip(users.tolist(), items.tolist(), strict=True):
            self.seen.setdefault(user, set()).add(item)

    def _labels(self, rated: Sequence[Event]) -> Tensor:
        values = np.array([event.value for event in rated], np.float32)
        if self.learner.config.task == "binary":
            return torch.from_numpy(binary_labels(values, self.ratings.threshold)).long()
        return torch.from_numpy(class_labels(values)).long()

    def _copied(self, number: int) -> Version:
        """Only those that the model met have embeddings: ids of events come to it in the order of their numbers."""
        users, items = len(self.users), len(self.items)
        self.learner.users.ensure(users)
        self.learner.items.ensure(items)
        copy = copy_for_ranking(self.learner, users, items)
        return Version(copy, users, items, number, self.arrival)

    def _resume(self) -> None:
        found = read_checkpoint(self._folder / CHECKPOINT)
        if found is None:
            return
        state = found.state
        if state["origin"] != self._origin:
            raise ArtifactError(
                f"{self._folder / CHECKPOINT}: what was learned there began with another model than the one that is "
                "served; name another folder with --histories FOLDER, or serve the model that it began with"
            )
        self.learner.restore(found.tensors, state["learner"])
        self.users, self.items = Identities(state["users"]), Identities(state["items"])
        self.arrival = int(state["arrival"])
        self.seen = {int(user): set(items) for user, items in state["seen"].items()}


def rating_scale(artifact: Path) -> RatingsConfig:
    """Scale and threshold with which a stream was prepared."""
    return RatingsConfig.model_validate(read_json(artifact / RATINGS_FILE))
