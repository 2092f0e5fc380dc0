"""What a run starts from, checked before anything trains: hours later would be too late to learn of a wrong file.

The driver reads this module before its Ray session: nothing here may import Ray.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from components.artifacts.format import verify
from components.artifacts.models import load_model, read_model_config
from components.data.prepared import PreparedSet
from components.errors import ArtifactError, ConfigError, DistilrecError
from components.evaluation.metrics import metric_values
from components.features.image import DESCRIPTORS, IMAGE_MODELS, READY
from components.features.pretrained import read_model_configuration
from components.features.text import BUNDLED, TEXT_MODELS, resolve_model
from components.students import STUDENTS
from components.students.sequential import CompressibleConfig
from components.students.warm_start import warm_start
from components.teachers.external import EXTERNAL, ExternalConfig, ExternalTeacher, load_external
from components.teachers.recformer.language_models import read_language_model_configuration
from pipelines.config import MAX_OVERLAP, RunConfig
from pipelines.failures import failure, joined
from pipelines.footprints import catalog_of
from pipelines.graph import Node
from pipelines.overlap import Overlap, compare_artifact
from pipelines.search.candidates import check_budget, setting_of
from pipelines.search.config import SEARCHED, SearchConfig
from pipelines.stages import SEED_MARK
from pipelines.training_job import METRIC, item_rows

Check = Callable[[], object]
logger = logging.getLogger(__name__)


def check_sources(config: RunConfig, missing: Iterable[Node]) -> None:
    """Check files and models from outside that the nodes `missing` would read; the set must be prepared already.

    Args:
        config: of the run.
        missing: nodes that have no result yet.

    Raises:
        DistilrecError: one error for all that is wrong, each named by its node.
    """
    prepared = PreparedSet(config.folder / "prepare")
    failures: list[DistilrecError] = []
    seen: set[str] = set()
    for node in missing:
        for name, check in _checks(config, node, prepared):
            if name in seen:
                continue  # to learn that a name cannot be reached takes a minute
            seen.add(name)
            try:
                check()
            except DistilrecError as error:
                failures.append(failure(node.name, error, config.folder))
                break
    if failures:
        raise joined(failures)


def _checks(config: RunConfig, node: Node, prepared: PreparedSet) -> Iterator[tuple[str, Check]]:
    """What is to be looked at for `node`, and a name under which nodes share one look."""
    if "start" in node.part:
        yield "start", lambda: check_start(config, Path(node.part["start"]), prepared)
    if node.stage == "features":
        if config.features and (name := config.features.model) != BUNDLED:
            yield name, lambda: read_model_configuration("features.model", name, resolve_model(name), TEXT_MODELS)
        if config.images and (encoder := config.images.encoder) not in (DESCRIPTORS, READY):
            yield encoder, lambda: read_model_configuration("images.encoder", encoder, encoder, IMAGE_MODELS)
    elif node.stage == "search" and (search := config.search):
        yield node.name, lambda: check_budget(config, search, catalog_of(prepared))
        if config.start:
            yield f"{node.name} start", lambda: check_searched_start(config, search, prepared)
    elif node.stage == "distill" and node.suffix.split(SEED_MARK)[0] != SEARCHED:
        student = config.variant(node.suffix.split(SEED_MARK)[0]).student
        choice = STUDENTS[student.kind].config.model_validate(student.arguments)
        if isinstance(choice, CompressibleConfig) and (compression := choice.compression):
            yield node.name, lambda: compression.blocks(prepared.counts[1:], choice.dim)
    elif node.stage == "teach":
        teacher = config.teachers[node.suffix]
        if teacher.kind == EXTERNAL:
            yield node.name, lambda: read_external(node.suffix, teacher.arguments, prepared)
        if isinstance(folder := teacher.pretrained, str):
            yield node.name, lambda: check_pretrained(config, node.suffix, Path(folder), prepared)
        if (backbone := teacher.arguments.get("backbone", BUNDLED)) != BUNDLED:
            yield f"backbone {backbone}", lambda: read_language_model_configuration(backbone)


def read_external(name: str, arguments: Mapping[str, Any], prepared: PreparedSet) -> tuple[ExternalTeacher, float]:
    """The arrays of the external teacher `name`, and its strength: given, or measured on validation histories.

    Raises:
        DataError: see `load_external`.
        ConfigError: its strength is neither given nor measurable: the states cover no validation histories.
    """
    config = ExternalConfig.model_validate(arguments)
    arrays, strength = load_external(config, prepared), config.strength
    if strength is None and arrays.valid_states is not None:
        targets = prepared.sequences.cases("valid").targets
        scores = arrays.valid_states @ arrays.items[1:].T  # (C, N)
        chosen = scores[np.arange(len(targets)), targets - 1]
        strength = float(metric_values((scores >= chosen[:, None]).sum(axis=1), METRIC).mean())
    if strength is None:
        raise ConfigError(
            f"teachers.{name}.strength: missing, and {config.states} holds no states of the validation "
            "histories to measure it; give the teacher's validation NDCG@10, or a file keyed by user_id and position"
        )
    return arrays, strength


def check_start(config: RunConfig, folder: Path, prepared: PreparedSet) -> None:
    """Look whether the run's student can begin with the artifact in `folder`.

    Raises:
        DistilrecError: it is missing, damaged, of another kind or shape, or which items it knows is not to be found.
    """
    kind, source = config.student.kind, load_model(folder)
    if (found := read_model_config(folder).kind) != kind:
        raise ArtifactError(f"start: {folder} holds a {found}, expected a {kind}")
    rows = item_rows(folder, prepared)
    warm_start(STUDENTS[kind].make(catalog_of(prepared), config.student.arguments), source, rows)
    if not rows.any():
        logger.info("start: %s knows none of this run's items; students take its network alone", folder)


def check_searched_start(config: RunConfig, search: SearchConfig, prepared: PreparedSet) -> None:
    """Refuse keys of a search whose students could not begin with the artifact `start`: another width, other layers.

    Raises:
        ConfigError: the key, its value, and what does not fit.
    """
    folder, catalog = Path(config.start or ""), catalog_of(prepared)
    source, rows = load_model(folder), item_rows(folder, prepared)
    for key, domain in search.whole_space().items():
        for value in domain.corners() if key.startswith("student.") else ():
            try:
                setting = setting_of(config, {key: value})
            except ConfigError:
                continue  # alone it contradicts other keys, which are searched as well
            try:
                warm_start(STUDENTS[setting.kind].make(catalog, setting.arguments), source, rows)
            except ConfigError as error:
                raise ConfigError(f"search: {key}: {value} does not go with start: {error}") from error


def check_pretrained(config: RunConfig, name: str, folder: Path, prepared: PreparedSet) -> Overlap:
    """What the pre-trained artifact in `folder` knows of the run's own items; teacher `name` may start from it.

    Raises:
        ArtifactError: it is damaged or of another kind.
        DataError: it learnt from too many of the run's own items.
    """
    verify(folder)
    kind, expected = read_model_config(folder).kind, config.teachers[name].kind
    if kind != expected:
        raise ArtifactError(f"teachers.{name}.pretrained: {folder} holds a {kind}, expected a {expected}")
    overlap = compare_artifact(prepared, folder)
    limit = config.pretrain.max_overlap if config.pretrain else MAX_OVERLAP
    overlap.check(limit, f"{folder} knows what this run is tested on; pre-train without those domains")
    return overlap
