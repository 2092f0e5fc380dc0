"""From an artifact to a model that is known to answer."""

from __future__ import annotations

import logging
from pathlib import Path

from components.errors import ArtifactError
from components.golden import GOLDEN_FILE, check_golden
from components.recommender import MIN_RECALL, Query, Recommender, Retrieval
from serve.logs import LOGGER


def load(artifact: Path | str, retrieval: Retrieval = "exact", min_recall: float = MIN_RECALL) -> Recommender:
    """Read an artifact, check its hashes, let it rank once, and compare its answers with those where it was made.

    Raises:
        ArtifactError: it is damaged, ranks nothing for an item that it knows, or answers its golden requests otherwise.
        UserError: approximate retrieval is not possible with it, or finds less than `min_recall`.
    """
    recommender = Recommender(artifact)
    probe(recommender)
    if not check_golden(recommender):
        logging.getLogger(LOGGER).warning("%s has no %s: its answers were not checked", artifact, GOLDEN_FILE)
    if retrieval == "faiss":  # from here on: golden requests are answered exactly
        recommender.search_approximately(min_recall)
    return recommender


def probe(recommender: Recommender) -> None:
    """Rank once.

    Raises:
        ArtifactError: nothing comes out.
    """
    query = Query(recommender.item_ids[:1], k=1, exclude_seen=False)
    if not recommender.answer([query])[0].items:
        raise ArtifactError(f"{recommender.folder}: ranks nothing for an item that it knows; export it again")
