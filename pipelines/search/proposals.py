"""Between Optuna and Tune: students that are over budget, impossible or known never become trials."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from components.errors import ConfigError
from pipelines.config import RunConfig
from pipelines.search.candidates import Scale, Weight, decoded, setting_key, setting_of
from pipelines.search.config import SearchConfig
from pipelines.search.trial import Record, read_record, trial_folder
from pipelines.study.plan import Setting
from tune_spaces import Space

NDCG: Final = "valid_ndcg_10"  # names that TensorBoard shows
BYTES: Final = "bytes"
LATENCY: Final = "latency_ms"
PARAMETERS: Final = "parameters"
NUMBER: Final = "number"  # of the student; beside what was drawn, as are its bytes and parameters
FAILED: Final = (
    -1.0
)  # NDCG@10 that Optuna is told of a student that failed or was refused; less where it is far too large
WORST: Final = 1e12  # bytes and ms of such a student, which would else look good on the front
ATTEMPTS: Final = 200  # proposals that are refused one after another before the search ends
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Search:
    """What a search works on; it travels to workers.

    Attributes:
        config: the run.
        search: its section `search`.
        trials: folder of the students' records, absolute.
        prepared: the prepared or annotated set.
        seed: of every student.
        space: the keys that are searched.
        started: identity of the artifact that students begin with, "" without one.
    """

    config: RunConfig
    search: SearchConfig
    trials: Path
    prepared: Path
    seed: int
    space: Space
    started: str = ""

    def proposal(self, drawn: Mapping[str, Any]) -> tuple[str, dict[str, Any], Setting]:
        """Key, values and setting of the student that was drawn.

        Raises:
            ConfigError: the drawn values contradict each other.
        """
        values = decoded(self.space, drawn)
        setting = setting_of(self.config, values)
        more = {"mask_history": self.config.evaluate.mask_history, "start": self.started}
        return setting_key(setting, self.seed, more), values, setting


def numbers(record: Record, search: SearchConfig) -> dict[str, float]:
    """What Tune, and TensorBoard, see of a student. One that is too slow is told as worse than it is."""
    slow = 0.0
    if search.max_latency_ms is not None and record.latency_ms is not None:
        slow = max(record.latency_ms / search.max_latency_ms - 1, 0.0)
    failed = record.state == "failed"
    return {
        NDCG: FAILED if failed else record.best - slow,
        BYTES: WORST if failed else float(record.weight.bytes),
        PARAMETERS: float(record.weight.parameters),
        LATENCY: WORST if failed or record.latency_ms is None else record.latency_ms,
    }


class WithinBudget(Searcher):
    """Hands on what Optuna proposes, but for students that are over budget, impossible, or were proposed before.

    Optuna is told at once how those fared: they cost no training and no place among the trials. After `ATTEMPTS`
    refusals in a row there is nothing left to try, and the search ends.

    Args:
        inner: proposes.
        search: what is searched.
        scale: weighs students.
        numbers: of the students that were begun in earlier starts, by key; new ones are counted on.
    """

    def __init__(self, inner: OptunaSearch, search: Search, scale: Scale, numbers: Mapping[str, int]) -> None:
        super().__init__(metric=inner.metric, mode=inner.mode)
        self._inner, self._search, self._scale = inner, search, scale
        self._ids: dict[str, str] = {}
        self._seen: set[str] = set()
        self._numbers, self._last = numbers, max(numbers.values(), default=0)
        self.refused: Counter[str] = Counter()

    def set_search_properties(self, metric: Any, mode: Any, config: dict[str, Any], **spec: Any) -> bool:
        """See `Searcher`."""
        taken: bool = self._inner.set_search_properties(metric, mode, config, **spec)
        self._metric, self._mode = self._inner.metric, self._inner.mode
        return taken

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next student; `Searcher.FINISHED` where only refused ones come."""
        for attempt in range(ATTEMPTS):
            name = f"{trial_id}-{attempt}"
            drawn = self._inner.suggest(name)
            if drawn is None:
                return None
            refuse = self._look_at(name, drawn)
            if isinstance(refuse, dict):
                self._ids[trial_id] = name
                return refuse
            refuse()
        logger.info("nothing new was proposed %d times in a row: the search ends", ATTEMPTS)
        return cast(None, Searcher.FINISHED)  # a word, which its annotation does not know

    def _look_at(self, name: str, drawn: dict[str, Any]) -> dict[str, Any] | Callable[[], None]:
        """What Tune gets of a student; where it is refused, what tells Optuna so."""
        try:
            key, _, setting = self._search.proposal(drawn)
            weight = self._scale.weigh(setting)
        except ConfigError as error:
            logger.info("refused %s: %s", drawn, error)
            return lambda: self._refuse("impossible", name, {NDCG: FAILED, BYTES: WORST, LATENCY: WORST})
        if (excess := weight.excess(self._search.search)) > 0:
            return lambda: self._refuse("over budget", name, {NDCG: FAILED - excess, BYTES: WORST, LATENCY: WORST})
        if key in self._seen:
            return lambda: self._refuse("repeated", name, self._known(key))
        self._seen.add(key)
        return {**drawn, NUMBER: self._number(key), **_shown(weight)}

    def _known(self, key: str) -> dict[str, float] | None:
        """How a student that was proposed before fared; None while it is trained."""
        record = read_record(trial_folder(self._search.trials, key))
        return None if record is None or record.state == "running" else numbers(record, self._search.search)

    def _refuse(self, reason: str, name: str, told: dict[str, float] | None) -> None:
        self.refused[reason] += 1
        self._inner.on_trial_complete(name, told, error=told is None)  # as an error it teaches Optuna nothing

    def _number(self, key: str) -> int:
        if key in self._numbers:
            return self._numbers[key]
        self._last += 1
        return self._last

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """See `Searcher`."""
        self._inner.on_trial_result(self._ids[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """See `Searcher`."""
        self._inner.on_trial_complete(self._ids[trial_id], result, error)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a search remembers by its records."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore from."""


def _shown(weight: Weight) -> dict[str, int]:
    return {BYTES: weight.bytes, PARAMETERS: weight.parameters}
