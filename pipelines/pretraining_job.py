"""One teacher to pre-train on several domains, described by paths; knows nothing of Ray."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.artifacts.models import registry_of
from components.data.batching import Batch, TrainingBatches
from components.data.flat_sequences import Sequences
from components.data.prepared import PreparedSet
from components.errors import ArtifactError
from components.model import Catalog, Ranker
from components.teachers.content import ContentRanker
from components.teachers.multimodal_pretraining import MultimodalObjective, add_merged_users
from components.teachers.pretraining import ContrastiveConfig, ContrastiveObjective, Domain, merge_domains
from components.teachers.unim2rec import UniM2Rec
from components.training.loop import World
from components.training.observer import Observer
from components.training.seeds import seed_everything
from pipelines.features import IMAGE_FILE, TEXT_FILE, TEXT_WORDS_FILE
from pipelines.training_job import Job, finish

MULTIMODAL = "unim2rec"
WORDS = "recformer"  # reads the items' own words and needs no vectors
PRETRAINABLE = (WORDS, MULTIMODAL, "unisrec")
INDUCTIVE = {"mode": "inductive", "tune": "full"}  # pre-training has no use for vectors of its own items

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DomainFolders:
    """Where one domain lies: its name, its prepared set, its text vectors and, if it has any, image vectors."""

    name: str
    prepared: Path
    features: Path | None
    left_out: tuple[int, ...] = ()  # numbers of items that nobody may have taken: those of the run's own catalog

    def read(self) -> Domain:
        """Sequences, without the items that are left out, and vectors in memory.

        Raises:
            ArtifactError: the text vectors are missing.
        """
        features = self.features or Path()
        text = _table(features / TEXT_FILE)
        if text is None:
            raise ArtifactError(f"{features / TEXT_FILE}: missing; run again with --from features")
        dropped, image = _table(features / TEXT_WORDS_FILE), _table(features / IMAGE_FILE)
        return Domain(self.name, self.sequences(), text, dropped, image)

    def sequences(self) -> Sequences:
        """Its sequences, without the items that are left out."""
        sequences = PreparedSet(self.prepared).sequences
        return sequences.without(np.array(self.left_out)) if self.left_out else sequences


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
        merged = self._read()
        model, catalog = self._build(merged)
        model.to(world.device)
        batches = TrainingBatches(
            merged.sequences, model.max_length, self.training.batch_size, self.training.windows, self.seed
        )
        validate = self.ranking(model, merged.sequences)
        history = self.trainer(model, batches, self._objective(model, merged), validate, world, observer).fit()
        return finish(self, model, catalog, history, max(history.best, 0.0), world)

    def _read(self) -> Domain:
        """All domains as one; for UniM2Rec with the sequences of users over all domains."""
        domains = [folders.read() for folders in self.domains]
        if self.kind != MULTIMODAL:
            return merge_domains([replace(domain, image=None) for domain in domains])
        merged = merge_domains(domains)
        users = [PreparedSet(folders.prepared).user_ids for folders in self.domains]
        merged, added = add_merged_users(merged, domains, users)
        logger.info("pre-training: %d users of several domains also have one sequence over all of them", added)
        return merged

    def _objective(self, model: ContentRanker, merged: Domain) -> Callable[[Batch], Tensor]:
        if isinstance(model, UniM2Rec):
            return MultimodalObjective(model, self.contrastive)
        dropped = None if merged.dropped_text is None else torch.from_numpy(merged.dropped_text)
        return ContrastiveObjective(model, self.contrastive, dropped)

    def _build(self, merged: Domain) -> tuple[ContentRanker, Catalog]:
        """The model from the job's seed, for the items of all domains."""
        items = len(merged.text) - 1
        counts = np.bincount(merged.sequences.items, minlength=items + 1).astype(np.int64)
        features = {"text": merged.text}
        if merged.image is not None and self.kind == MULTIMODAL:
            features["image"] = merged.image
        catalog = Catalog(items, len(merged.sequences), counts, merged.sequences, features)
        seed_everything(self.seed)
        model = registry_of(self.family)[self.kind].make(catalog, self.arguments)
        if not isinstance(model, ContentRanker):
            raise TypeError(f"{self.kind} cannot be pre-trained")
        return model, catalog

    def ranking(self, model: Ranker, sequences: Sequences) -> Callable[[], float] | None:
        """Ranking of all domains' items on the validation parts; None where no user has one."""
        cases = sequences.cases("valid")
        return self.validation(model, cases) if len(cases) else None


def _table(path: Path) -> NDArray[np.float32] | None:
    return np.load(path, allow_pickle=False) if path.is_file() else None
