"""The run as a graph of nodes: a pure function of the configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from components.errors import UserError, nearest
from components.teachers.external import EXTERNAL
from pipelines.config import COUNTING
from pipelines.search.config import SEARCHED
from pipelines.stages import SEED_MARK

if TYPE_CHECKING:
    from pipelines.config import RunConfig
# Keys that change how the work is done, never what it writes; or what an input of the node writes.
HOW: Final = {
    "prepare": {"partitions", "fast_path_rows", "shuffle_strategy"},
    "training": {"checkpoint_seconds"},
    "teacher": {"resources", "pretraining"},
    "features": {"batch_tokens"},
    "images": {"batch_size"},
    "search": {"max_parallel"},
}


@dataclass(frozen=True)
class Node:
    """One call of a stage.

    Attributes:
        stage: what runs.
        suffix: which one of the stage's nodes; ``""`` where it has one.
        inputs: names of the nodes that it reads.
        part: the part of the configuration that decides what it writes, as plain JSON values.
        seed: its own seed.
        domain: the pre-training domain that it belongs to, ``""`` for the run's own data.
    """

    stage: str
    suffix: str = ""
    inputs: tuple[str, ...] = ()
    part: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    domain: str = ""

    @property
    def name(self) -> str:
        """``"teach/unisrec"``; ``"prepare"`` where the stage has one node."""
        return f"{self.stage}/{self.suffix}" if self.suffix else self.stage

    @property
    def folder(self) -> str:
        """Where it writes below the run folder: its name; domains are apart, no folder lies inside another node's."""
        return f"domains/{self.domain}/{self.stage}" if self.domain else self.name


def build_graph(config: RunConfig) -> list[Node]:
    """All nodes of the run, every node after its inputs."""
    if config.streams:
        return [*_data_nodes(config), *_stream_nodes(config)]
    models = [*_teacher_nodes(config), *_student_nodes(config)]
    return [*_data_nodes(config), *_pretrain_nodes(config), *models, *_final_nodes(config, models)]


def select(nodes: Iterable[Node], stage: str) -> list[Node]:
    """The nodes of `stage` and all that they need, in order.

    Raises:
        UserError: the run has no node of this stage.
    """
    nodes = list(nodes)
    needed = {node.name for node in nodes if node.stage == stage}
    if not needed:
        known = list(dict.fromkeys(node.stage for node in nodes))
        raise UserError(f"this run has no stage {stage!r}; it has: {', '.join(known)}{nearest(stage, known)}")
    for node in reversed(nodes):
        if node.name in needed:
            needed.update(node.inputs)
    return [node for node in nodes if node.name in needed]


def _data_nodes(config: RunConfig) -> list[Node]:
    nodes = []
    for domain in ("", *config.domains):
        source = config.source(domain)
        part = {"input": _json(source.input), "prepare": _json(source.prepare, "prepare")}
        nodes.append(Node("prepare", domain, (), part, _seed(config), domain))
        if config.features:
            part = {"features": _json(config.features, "features")}
            if config.images:
                part["images"] = _json(config.images, "images")
            nodes.append(Node("features", domain, (nodes[-1].name,), part, _seed(config), domain))
    return nodes


def _pretrain_nodes(config: RunConfig) -> list[Node]:
    if config.pretrain is None:
        return []
    shared = _json(config.pretrain)
    del shared["domains"]  # their data reaches the key through the inputs
    stages = ("prepare", "features") if config.features else ("prepare",)
    inputs = ("prepare", *(f"{stage}/{domain}" for domain in config.domains for stage in stages))
    nodes = []
    for name, teacher in config.teachers.items():
        if teacher.pretrained is True:
            model = {"kind": teacher.kind, "arguments": teacher.arguments}
            part = {**shared, "training": _json(config.pretraining_of(name), "training")}
            nodes.append(Node("pretrain", name, inputs, {"pretrain": part, **model}, _seed(config)))
    return nodes


def _teacher_nodes(config: RunConfig) -> list[Node]:
    nodes = []
    for name, teacher in config.teachers.items():
        inputs = ["prepare"]
        if config.features and teacher.kind != EXTERNAL:
            inputs.append("features")
        if teacher.pretrained is True:
            inputs.append(f"pretrain/{name}")
        part = {**_json(teacher, "teacher"), "training": _json(teacher.training, "training")}
        seed = _seed(config) if teacher.seed is None else teacher.seed
        nodes.append(Node("teach", name, tuple(inputs), {"teacher": part, **_validation(config)}, seed))
    asked = config.taught_by()
    if asked:
        nodes.append(Node("annotate", "", ("prepare", *(f"teach/{name}" for name in asked)), {}, _seed(config)))
    return nodes


def _student_nodes(config: RunConfig) -> list[Node]:
    nodes = []
    for variant in config.students():
        counts = variant.student.kind in COUNTING
        part: dict[str, Any] = {"student": _json(variant.student), **_validation(config)}
        if counts:
            part["training"] = {"validation_users": config.training.validation_users}
        else:
            part["training"] = _json(config.training, "training")
        if variant.distillation:
            part["distillation"] = _json(variant.distillation)
        if config.start and variant.student.kind == config.student.kind:
            part["start"] = config.start
        inputs = ("annotate" if variant.distillation else "prepare",)
        for seed in config.seeds[:1] if counts else config.seeds:
            nodes.append(Node("distill", f"{variant.name}{SEED_MARK}{seed}", inputs, part, seed))
    return [*nodes, *_search_nodes(config)]


def _search_nodes(config: RunConfig) -> list[Node]:
    """The search, and its winner with every seed: which student that is, the search's output says."""
    if config.search is None:
        return []
    taught = config.distillation is not None and bool(config.teachers)
    data = "annotate" if taught else "prepare"
    part: dict[str, Any] = {
        "search": _json(config.search, "search"),
        "space": {key: domain.model_dump(mode="json") for key, domain in config.search.whole_space().items()},
        "student": _json(config.student),
        "training": _json(config.training, "training"),
        **_validation(config),
    }
    if taught and config.distillation:
        part["distillation"] = _json(config.distillation)
    if config.start:
        part["start"] = config.start
    seed = _seed(config) if config.search.seed is None else config.search.seed
    nodes = [Node("search", "", tuple(dict.fromkeys(("prepare", data))), part, seed)]
    for each in config.seeds:
        inputs = ("search", data)
        nodes.append(Node("distill", f"{SEARCHED}{SEED_MARK}{each}", inputs, _validation(config), each))
    return nodes


def _stream_nodes(config: RunConfig) -> list[Node]:
    section = config.stream_section
    part = {"stream": {**_json(section.model()), "test_fraction": section.test_fraction}}
    return [
        Node("stream", f"{method}{SEED_MARK}{seed}", ("prepare",), {**part, "method": method}, seed)
        for method in section.methods
        for seed in config.seeds
    ]


def _final_nodes(config: RunConfig, models: list[Node]) -> list[Node]:
    ranked = tuple(node.name for node in models if node.stage in ("teach", "distill"))
    stages = {"distill"} | ({"teach"} if config.export.new_items else set())
    stages |= {"annotate"} if config.export.opinions else set()
    exported = tuple(node.name for node in models if node.stage in stages)
    return [
        Node("evaluate", "", ("prepare", *ranked), {"evaluate": _json(config.evaluate)}, _seed(config)),
        Node("export", "", ("prepare", "evaluate", *exported), {"export": _json(config.export)}, _seed(config)),
    ]


def _validation(config: RunConfig) -> dict[str, Any]:
    """What decides early stopping beside the training section."""
    return {"mask_history": config.evaluate.mask_history}


def _seed(config: RunConfig) -> int:
    return config.seeds[0]


def _json(model: BaseModel, section: str = "") -> dict[str, Any]:
    """A section as plain JSON values, without the keys of `HOW`."""
    return model.model_dump(mode="json", exclude=HOW.get(section))
