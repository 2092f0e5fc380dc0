from __future__ import annotations

from pathlib import Path

import pytest

from components.errors import UserError
from pipelines.graph import build_graph, select
from tests.pipelines.run_configs import FULL, PLAIN_RUN, make_config

# node: its inputs
FULL_GRAPH = {
    "prepare": (),
    "features": ("prepare",),
    "prepare/food": (),
    "features/food": ("prepare/food",),
    "prepare/arts": (),
    "features/arts": ("prepare/arts",),
    "pretrain/text": ("prepare", "prepare/food", "features/food", "prepare/arts", "features/arts"),
    "teach/text": ("prepare", "features", "pretrain/text"),
    "teach/id": ("prepare", "features"),
    "annotate": ("prepare", "teach/text", "teach/id"),
    "distill/mostpop/seed-0": ("prepare",),
    "distill/markov/seed-0": ("prepare",),
    "distill/plain/seed-0": ("prepare",),
    "distill/plain/seed-1": ("prepare",),
    "distill/prm-kd/seed-0": ("annotate",),
    "distill/prm-kd/seed-1": ("annotate",),
    "distill/average/seed-0": ("annotate",),
    "distill/average/seed-1": ("annotate",),
}
STUDENTS = tuple(name for name in FULL_GRAPH if name.startswith("distill/"))
PLAIN_GRAPH = {
    "prepare": (),
    "distill/mostpop/seed-0": ("prepare",),
    "distill/plain/seed-0": ("prepare",),
    "evaluate": ("prepare", "distill/mostpop/seed-0", "distill/plain/seed-0"),
    "export": ("prepare", "evaluate", "distill/mostpop/seed-0", "distill/plain/seed-0"),
}


def test_the_full_graph(tmp_path: Path) -> None:
    graph = {node.name: node.inputs for node in build_graph(make_config(tmp_path, FULL))}
    last = {
        "evaluate": ("prepare", "teach/text", "teach/id", *STUDENTS),
        "export": ("prepare", "evaluate", "teach/text", "teach/id", "annotate", *STUDENTS),
    }
    assert graph == {**FULL_GRAPH, **last}


def test_an_export_without_new_items_reads_no_teacher(tmp_path: Path) -> None:
    nodes = build_graph(make_config(tmp_path, FULL, "export.new_items=false"))
    assert nodes[-1].inputs == ("prepare", "evaluate", "annotate", *STUDENTS)
    nodes = build_graph(make_config(tmp_path, FULL, "export.new_items=false", "export.opinions=false"))
    assert nodes[-1].inputs == ("prepare", "evaluate", *STUDENTS)


def test_a_run_without_teachers(tmp_path: Path) -> None:
    assert {node.name: node.inputs for node in build_graph(make_config(tmp_path, PLAIN_RUN))} == PLAIN_GRAPH


def test_only_teachers_that_a_student_learns_from_are_annotated(tmp_path: Path) -> None:
    def annotated(*overrides: str) -> list[tuple[str, ...]]:
        nodes = build_graph(make_config(tmp_path, FULL, *overrides))
        return [node.inputs for node in nodes if node.name == "annotate"]

    one = ("distillation.teachers=[text]", "variants={}")
    assert annotated(*one) == [("prepare", "teach/text")]
    assert annotated(one[0], "variants={both: {teachers: [id, text]}}") == [("prepare", "teach/text", "teach/id")]
    assert annotated("distillation=null", "variants={}") == []


def test_every_node_comes_after_its_inputs(tmp_path: Path) -> None:
    seen: set[str] = set()
    for node in build_graph(make_config(tmp_path, FULL)):
        assert set(node.inputs) <= seen
        seen.add(node.name)


def test_no_folder_lies_inside_another(tmp_path: Path) -> None:
    folders = [Path(node.folder) for node in build_graph(make_config(tmp_path, FULL))]
    assert len(set(folders)) == len(folders)
    assert not [(a, b) for a in folders for b in folders if a in b.parents]


def test_domains_are_left_out_where_no_teacher_is_pretrained(tmp_path: Path) -> None:
    config = make_config(tmp_path, FULL, "teachers.text.pretrained=false")
    names = [node.name for node in build_graph(config)]
    assert not [name for name in names if "food" in name or name.startswith("pretrain")]


def test_an_external_teacher_needs_no_features(tmp_path: Path) -> None:
    external = {"kind": "external", "items": "items.npy", "states": "states.npy"}
    config = make_config(tmp_path, {**FULL, "teachers": {"llm": external}})
    nodes = {node.name: node for node in build_graph(config)}
    assert nodes["teach/llm"].inputs == ("prepare",)


# an override: the nodes whose own part it changes (not those that follow through their inputs)
CHANGES = {
    "training.epochs=7": {name for name in STUDENTS if "mostpop" not in name and "markov" not in name},
    "student.dim=16": {name for name in STUDENTS if "mostpop" not in name and "markov" not in name},
    "distillation.weight=2": {name for name in STUDENTS if "prm-kd" in name or "average" in name},
    "variants.average.temperature=2": {name for name in STUDENTS if "average" in name},
    "teachers.id.training.epochs=7": {"teach/id"},
    "teachers.text.dropout=0.3": {"teach/text", "pretrain/text"},
    "pretrain.training.epochs=7": {"pretrain/text"},
    "teachers.text.pretraining={epochs: 7}": {"pretrain/text"},
    "prepare.min_interactions_per_user=3": {"prepare"},
    "features.max_tokens=64": {"features", "features/food", "features/arts"},
    "evaluate.bootstrap=200": {"evaluate"},
    "evaluate.mask_history=true": {"evaluate", "teach/text", "teach/id", *STUDENTS},
    "export.histories=true": {"export"},
    "data=/elsewhere": set(),  # the content of the files counts, not where they lie
    "cluster.num_workers=2": set(),
    "training.checkpoint_seconds=1": set(),
    "prepare.partitions=3": set(),
}


@pytest.mark.parametrize(("override", "changed"), CHANGES.items(), ids=CHANGES)
def test_a_change_reaches_the_nodes_that_it_concerns(tmp_path: Path, override: str, changed: set[str]) -> None:
    before = {node.name: node.part for node in build_graph(make_config(tmp_path, FULL))}
    after = {node.name: node.part for node in build_graph(make_config(tmp_path, FULL, override))}
    assert {name for name in before if before[name] != after[name]} == changed


def test_a_default_that_is_written_out_changes_nothing(tmp_path: Path) -> None:
    from components.students.sasrec import SASRecConfig

    length = SASRecConfig().max_length
    before = {node.name: node.part for node in build_graph(make_config(tmp_path, FULL))}
    after = {node.name: node.part for node in build_graph(make_config(tmp_path, FULL, f"student.max_length={length}"))}
    assert before == after


def test_select_takes_a_stage_and_what_it_needs(tmp_path: Path) -> None:
    nodes = build_graph(make_config(tmp_path, FULL))
    names = {node.name for node in select(nodes, "pretrain")}
    assert names == {"prepare", "prepare/food", "features/food", "prepare/arts", "features/arts", "pretrain/text"}
    assert "evaluate" not in {node.name for node in select(nodes, "distill")}


def test_select_names_the_stages_that_the_run_has(tmp_path: Path) -> None:
    nodes = build_graph(make_config(tmp_path, PLAIN_RUN))
    with pytest.raises(UserError, match="no stage 'teach'; it has: prepare, distill, evaluate, export"):
        select(nodes, "teach")


def test_variants_override_the_distillation(tmp_path: Path) -> None:
    config = make_config(tmp_path, FULL, "distillation.temperature=0.7")
    assert config.variant("average").distillation.weights == "average"
    assert config.variant("average").distillation.temperature == 0.7
    assert config.variant("plain").distillation is None


def test_a_teacher_may_have_a_seed_of_its_own(tmp_path: Path) -> None:
    teachers = {**FULL["teachers"], "id": {**FULL["teachers"]["id"], "seed": 7}}
    seeds = {node.name: node.seed for node in build_graph(make_config(tmp_path, {**FULL, "teachers": teachers}))}
    assert (seeds["teach/id"], seeds["teach/text"]) == (7, 0)
