"""A Recformer to pre-train on several domains, described by paths; knows nothing of Ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from components.artifacts.models import registry_of
from components.data.batching import PrefixBatches
from components.data.flat_sequences import Sequences
from components.data.prepared import PreparedSet
from components.model import Catalog, Ranker
from components.teachers.pretraining import Domain, merge_domains
from components.teachers.recformer.model import Recformer
from components.teachers.recformer.pretraining import Pretraining, merge_attributes
from components.training.loop import World
from components.training.observer import Observer
from components.training.seeds import seed_everything
from pipelines.pretraining_job import PretrainingJob
from pipelines.training_job import finish

FULL = {"lora_rank": None}  # low-rank changes belong to one catalog; all weights are pre-trained


@dataclass(frozen=True, kw_only=True)
class RecformerPretrainingJob(PretrainingJob):
    """Pre-trains a Recformer on all domains together, from their items' own words."""

    def run(self, world: World, observer: Observer | None = None) -> dict[str, float]:
        """See `Job.run`."""
        torch.set_num_threads(self.threads)
        catalog = self._catalog()
        assert catalog.sequences is not None
        seed_everything(self.seed)
        model = registry_of(self.family)[self.kind].make(catalog, self.arguments)
        assert isinstance(model, Recformer)
        pretraining = Pretraining(model, self.contrastive.mlm_weight, self.contrastive.mlm_share).to(world.device)
        batches = PrefixBatches(
            catalog.sequences, model.max_length, self.training.batch_size, self.seed, second_half=True
        )
        validate = self.ranking(model, catalog.sequences)
        history = self.trainer(pretraining, batches, pretraining, validate, world, observer).fit()
        if world.rank == 0:
            model.refresh()
        return finish(self, model, catalog, history, max(history.best, 0.0), world)

    def _catalog(self) -> Catalog:
        """The items and sequences of all domains; there are no vectors, only their numbers of rows."""
        read = [PreparedSet(folders.prepared) for folders in self.domains]
        merged = merge_domains(
            [
                Domain(folders.name, folders.sequences(), np.zeros((prepared.num_items + 1, 0), np.float32))
                for folders, prepared in zip(self.domains, read, strict=True)
            ]
        )
        sequences, items = merged.sequences, len(merged.text) - 1
        counts = np.bincount(sequences.items, minlength=items + 1).astype(np.int64)
        attributes = merge_attributes([(prepared.num_items, prepared.attributes) for prepared in read])
        return Catalog(items, len(sequences), counts, sequences, attributes=attributes)

    def ranking(self, model: Ranker, sequences: Sequences) -> Callable[[], float] | None:
        """See `PretrainingJob.ranking`; item vectors are made anew for each."""
        rank = super().ranking(model, sequences)
        if rank is None:
            return None

        def refresh_and_rank() -> float:
            assert isinstance(model, Recformer)
            model.refresh()
            return rank()

        return refresh_and_rank
