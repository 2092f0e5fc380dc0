"""What a run starts from, checked before anything trains: hours later would be too late to learn of a wrong file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from components.data.prepared import PreparedSet
from components.errors import DistilrecError
from components.features.image import DESCRIPTORS, IMAGE_MODELS, READY
from components.features.pretrained import read_model_configuration
from components.features.text import BUNDLED, TEXT_MODELS, resolve_model
from components.teachers.external import EXTERNAL
from components.teachers.recformer.language_models import read_language_model_configuration
from pipelines.failures import failure, joined
from pipelines.teach import check_pretrained, read_external

if TYPE_CHECKING:
    from pipelines.config import RunConfig
    from pipelines.graph import Node

Check = Callable[[], object]


def check_sources(config: RunConfig, missing: Iterable[Node]) -> None:
    """Check files and models from outside that the nodes `missing` would read; the set must be prepared already.

    Args:
        config: of the run.
        missing: nodes that have no result yet.

    Raises:
        DistilrecError: one error for all that is wrong, each named by its node.
    """
    prepared = PreparedSet(config.folder / "prepare")
    failures = []
    for node in missing:
        for check in _checks(config, node, prepared):
            try:
                check()
            except DistilrecError as error:
                failures.append(failure(node.name, error, config.folder))
                break
    if failures:
        raise joined(failures)


def _checks(config: RunConfig, node: Node, prepared: PreparedSet) -> Iterator[Check]:
    if node.stage == "features":
        if config.features and (name := config.features.model) != BUNDLED:
            yield lambda: read_model_configuration("features.model", name, resolve_model(name), TEXT_MODELS)
        if config.images and (encoder := config.images.encoder) not in (DESCRIPTORS, READY):
            yield lambda: read_model_configuration("images.encoder", encoder, encoder, IMAGE_MODELS)
    elif node.stage == "teach":
        teacher = config.teachers[node.suffix]
        if teacher.kind == EXTERNAL:
            yield lambda: read_external(node.suffix, teacher.arguments, prepared)
        if isinstance(folder := teacher.pretrained, str):
            yield lambda: check_pretrained(config, node.suffix, Path(folder), prepared)
        if (backbone := teacher.arguments.get("backbone", BUNDLED)) != BUNDLED:
            yield lambda: read_language_model_configuration(backbone)
