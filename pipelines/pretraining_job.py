"""One teacher to pre-train on several domains, described by paths; knows nothing of Ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from components.artifacts.models import registry_of
from components.data.batching import TrainingBatches
from components.data.prepared import PreparedSet
from components.errors import ArtifactError
from components.evaluation.validation import validation_metric
from components.model import Catalog
from components.teachers.pretraining import ContrastiveConfig, ContrastiveObjective, Domain, merge_domains
from components.teachers.unisrec import UniSRec
from components.training.loop import Observer, Trainer, World
from components.training.seeds import seed_everything
from pipelines.features import TEXT_FILE, TEXT_WORDS_FILE
from pipelines.training_job import METRIC, Job, finish

PRETRAINABLE = ("unisrec",)
INDUCTIVE = {"mode": "inductive", "tune": "full"}  # pre-training has no use for vectors of its own items


@dataclass(frozen=True)
class DomainFolders:
    """Where one domain lies: its name, its prepared set and its text vectors."""

    name: str
    prepared: Path
    features: Path

    def read(self) -> Domain:
        """Sequences and text vectors in memory.

        Raises:
            ArtifactError: the text vectors are missing.
        """
        prepared = PreparedSet(self.prepared)
        text = _table(self.features / TEXT_FILE)
        if text is None:
            raise ArtifactError(f"{self.features / TEXT_FILE}: missing; run again with --from features")
        return Domain(self.name, prepared.sequences, text, _table(self.features / TEXT_WORDS_FILE))


@dataclass(frozen=True, kw_only=True)
class PretrainingJob(Job):
    """Pre-trains a teacher on all domains together.

    Attributes:
        domains: where they lie.
        contrastive: losses and augmentation.
    """

    domains: tuple[DomainFolders, ...]
    contrastive: ContrastiveConfig

    def run(self, world: World, observer: Observer | None = None) -> dict[str, float]:
        """See `Job.run`."""
        torch.set_num_threads(self.threads)
        merged = merge_domains([domain.read() for domain in self.domains])
        model, catalog = self._build(merged)
        model.to(world.device)
        dropped = None if merged.dropped_text is None else torch.from_numpy(merged.dropped_text)
        trainer = Trainer(
            model,
            TrainingBatches(
                merged.sequences, model.max_length, self.training.batch_size, self.training.windows, self.seed
            ),
            self.training,
            objective=ContrastiveObjective(model, self.contrastive, dropped),
            validate=self._validation(model, merged),
            folder=self.work,
            world=world,
            observer=observer,
            metric=METRIC,
        )
        history = trainer.fit()
        return finish(self, model, catalog, history, max(history.best, 0.0), world)

    def _build(self, merged: Domain) -> tuple[UniSRec, Catalog]:
        """The model from the job's seed, for the items of all domains."""
        items = len(merged.text) - 1
        counts = np.bincount(merged.sequences.items, minlength=items + 1).astype(np.int64)
        catalog = Catalog(items, len(merged.sequences), counts, merged.sequences, {"text": merged.text})
        seed_everything(self.seed)
        model = registry_of(self.family)[self.kind].make(catalog, self.arguments)
        if not isinstance(model, UniSRec):
            raise TypeError(f"{self.kind} cannot be pre-trained")
        return model, catalog

    def _validation(self, model: UniSRec, merged: Domain) -> Callable[[], float] | None:
        """Ranking of all domains' items on the validation parts; None where no user has one."""
        cases = merged.sequences.cases("valid")
        if len(cases) == 0:
            return None

        def validate() -> float:
            return validation_metric(
                model, cases, METRIC, max_users=self.training.validation_users, mask_history=self.mask_history
            )

        return validate


def _table(path: Path) -> NDArray[np.float32] | None:
    return np.load(path, allow_pickle=False) if path.is_file() else None
