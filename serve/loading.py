"""From an artifact to a model that is known to answer."""

from __future__ import annotations

from pathlib import Path

from components.errors import ArtifactError
from components.recommender import Query, Recommender


def load(artifact: Path | str) -> Recommender:
    """Read an artifact, check its hashes, and let it rank once.

    Raises:
        ArtifactError: it is damaged, or ranks nothing for an item that it knows.
    """
    recommender = Recommender(artifact)
    probe(recommender)
    return recommender


def probe(recommender: Recommender) -> None:
    """Rank once.

    Raises:
        ArtifactError: nothing comes out.
    """
    query = Query(recommender.item_ids[:1], k=1, exclude_seen=False)
    if not recommender.answer([query])[0].items:
        raise ArtifactError(f"{recommender.folder}: ranks nothing for an item that it knows; export it again")
