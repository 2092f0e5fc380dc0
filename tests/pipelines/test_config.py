from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.errors import ConfigError
from pipelines.config_file import read_source
from pipelines.load_config import load_config
from tests.pipelines.run_configs import FULL, PLAIN_RUN, make_config, write_config

VALID = """\
name: demo
data: ${WORLD:-world}
input:
  interactions: log.csv
training:
  epochs: 3
"""


SHIPPED = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_configurations_are_valid_and_named_as_their_file(file: Path) -> None:
    assert load_config(file).name == file.stem


def write(folder: Path, text: str) -> Path:
    file = folder / "demo.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def problem(file: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        load_config(file, overrides)
    return str(error.value)


def test_a_valid_file(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, VALID))
    assert (config.name, config.training.epochs, config.seeds) == ("demo", 3, [0])
    assert config.folder == Path("runs/demo")


def test_overrides_have_yaml_types(tmp_path: Path) -> None:
    file = write(tmp_path, VALID)
    config = load_config(
        file, ["seeds=[3, 4]", "training.learning_rate=1e-2", "features.max_tokens=64", "input.items=x.csv", "data=7"]
    )
    assert config.seeds == [3, 4]
    assert config.training.learning_rate == 0.01
    assert config.features is not None
    assert config.features.max_tokens == 64
    assert config.data == "7"


def test_environment_variables_are_replaced_in_every_string(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, VALID)
    assert load_config(file).data == "world"
    monkeypatch.setenv("WORLD", "/mnt/world")
    assert load_config(file).data == "/mnt/world"


def test_a_variable_without_value_or_default(tmp_path: Path) -> None:
    file = write(tmp_path, VALID.replace("${WORLD:-world}", "${SURELY_NOT_SET}/x"))
    message = problem(file)
    assert f"{file}:2: data: the environment variable SURELY_NOT_SET is not set" in message
    assert "${SURELY_NOT_SET:-default}" in message


# text to replace, by what, line, what the message must say
MISTAKES: dict[str, tuple[str, str, int, list[str]]] = {
    "unknown key": (
        "  epochs: 3",
        "  epoch: 3",
        6,
        ["training.epoch", "valid keys: batch_size,", "did you mean 'epochs'"],
    ),
    "unknown section": ("training:", "traning:", 5, ["traning", "valid keys: baselines,", "did you mean 'training'"]),
    "wrong type": ("epochs: 3", "epochs: many", 6, ["training.epochs", "expected an integer", "got 'many'"]),
    "out of range": (
        "epochs: 3",
        "epochs: 0",
        6,
        ["training.epochs", "expected a value greater than or equal to 1, got 0"],
    ),
    "wrong choice": (
        "epochs: 3",
        "schedule: linaer",
        6,
        ["'constant', 'linear' or 'cosine'", "got 'linaer'", "did you mean 'linear'"],
    ),
    "path as a name": ("name: demo", "name: ../demo", 1, ["name", "got '../demo'"]),
    "null section": ("training:\n  epochs: 3", "training:", 5, ["training", "got None"]),
    "union": (
        "training:\n  epochs: 3",
        "cluster:\n  use_gpu: 7",
        6,
        ["cluster.use_gpu: expected a boolean or 'auto', got 7"],
    ),
    "duplicate key": ("  epochs: 3", "  epochs: 3\n  epochs: 4", 7, ["training.epochs", "twice, first in line 6"]),
    "unknown student": (
        "training:\n  epochs: 3",
        "student:\n  kind: sasrek",
        6,
        ["student.kind: unknown student 'sasrek'", "did you mean 'sasrec'"],
    ),
    "unknown argument of the student": (
        "training:\n  epochs: 3",
        "student: {kind: sasrec, dimm: 3}",
        5,
        ["student.dimm: unknown key; valid keys: ", "kind", "did you mean 'dim'"],
    ),
    "unknown teacher": (
        "training:\n  epochs: 3",
        "teachers:\n  a:\n    kind: unisrek",
        7,
        ["teachers.a.kind: unknown teacher 'unisrek'; known: external, recformer, unim2rec, unisrec"],
    ),
    "unknown baseline": (
        "training:\n  epochs: 3",
        "baselines:\n  - plain\n  - mostpopular",
        7,
        ["baselines.1: unknown baseline 'mostpopular'", "did you mean 'mostpop'"],
    ),
    "pretrained without pretrain": (
        "training:\n  epochs: 3",
        "teachers: {a: {kind: external, items: a.npy, states: b.npy, pretrained: true}}",
        5,
        ["teachers.a.pretrained: true needs the section `pretrain`"],
    ),
    "distillation without teachers": (
        "training:\n  epochs: 3",
        "distillation: {}",
        5,
        ["distillation: needs teachers"],
    ),
    "heads that do not divide the width": (
        "training:\n  epochs: 3",
        "student: {kind: sasrec, dim: 10, num_heads: 3}",
        5,
        ["student: dim must be a multiple of num_heads, got dim=10, num_heads=3"],
    ),
    "heads of a teacher": (
        "  interactions: log.csv\ntraining:\n  epochs: 3",
        "  {interactions: log.csv, items: x.csv}\nfeatures: {}\nteachers:\n  a: {kind: unisrec, dim: 10, num_heads: 4}",
        7,
        ["teachers.a: dim must be a multiple of num_heads, got dim=10, num_heads=4"],
    ),
    "loss that the head cannot serve": (
        "training:\n  epochs: 3",
        "student: {kind: lightgcn, loss: gbce}",
        5,
        ["student.loss: expected 'softmax' or 'bpr', got 'gbce'"],
    ),
    "loss of another student": (
        "training:\n  epochs: 3",
        "student: {kind: fm, loss: in-batch}",
        5,
        ["student.loss: expected 'softmax', 'sampled-softmax', 'gbce', 'bce' or 'bpr', got 'in-batch'"],
    ),
    "loss of a student that has one of its own": (
        "training:\n  epochs: 3",
        "student: {kind: bert4rec, loss: softmax}",
        5,
        ["student.loss: unknown key; valid keys: activation, attention_dropout, compression, dim, "],
    ),
    "misspelt key of the compression": (
        "training:\n  epochs: 3",
        "student: {kind: sasrec, compression: {rank: [4]}}",
        5,
        ["student.compression.rank: unknown key; valid keys: boundaries, ", "did you mean 'ranks'?"],
    ),
    "student that cannot be taught": (
        "  interactions: log.csv\ntraining:\n  epochs: 3",
        "  {interactions: log.csv, items: x.csv}\n"
        "distillation: {}\nteachers: {a: {kind: recformer}}\nstudent: {kind: markov}",
        7,
        ["student.kind: 'markov' counts and cannot be taught; choose sasrec, ", "or remove `distillation`"],
    ),
    "user fields without users": (
        "training:\n  epochs: 3",
        "student: {kind: fm, user_fields: [age]}",
        5,
        ["student.user_fields: need a file of users; set input.users"],
    ),
    "item fields without items": (
        "training:\n  epochs: 3",
        "student: {kind: deepfm, item_fields: [brand]}",
        5,
        ["student.item_fields: need a file of items; set input.items"],
    ),
    "item field that is no text column": (
        "  interactions: log.csv\ntraining:\n  epochs: 3",
        "  {interactions: log.csv, items: x.csv, text_columns: [title, brand]}\n"
        "student: {kind: fm, item_fields: [title, brant]}",
        5,
        ["student.item_fields.1: 'brant' is none of input.text_columns: title, brand; did you mean 'brand'?"],
    ),
    "features without items": (
        "training:\n  epochs: 3",
        "features: {}",
        5,
        ["features: needs item texts; set input.items"],
    ),
    "content teacher without features": (
        "training:\n  epochs: 3",
        "teachers:\n  a: {kind: unim2rec}",
        6,
        ["teachers.a.kind: 'unim2rec' reads vectors of item texts; add the section `features`"],
    ),
    "word teacher without items": (
        "training:\n  epochs: 3",
        "teachers:\n  a: {kind: recformer}",
        6,
        ["teachers.a.kind: 'recformer' reads item texts; set input.items"],
    ),
    "language model that is not there": (
        "  interactions: log.csv\ntraining:\n  epochs: 3",
        "  {interactions: log.csv, items: x.csv}\nfeatures:\n  model: ./no/model",
        6,
        ["features.model: no folder './no/model'; give one with config.json and model.safetensors, or a Hugging Face"],
    ),
    "vision model that is not there": (
        "  interactions: log.csv\ntraining:\n  epochs: 3",
        "  {interactions: log.csv, images: x}\nfeatures: {}\nimages: {encoder: /no/model}",
        6,
        ["images.encoder: no folder '/no/model'"],
    ),
    "backbone that is not there": (
        "  interactions: log.csv\ntraining:\n  epochs: 3",
        "  {interactions: log.csv, items: x.csv}\nteachers: {a: {kind: recformer, backbone: a/b/c}}",
        5,
        ["teachers.a.backbone: no folder 'a/b/c'"],
    ),
    "seed twice": ("training:\n  epochs: 3", "seeds: [1, 1]", 5, ["seeds: a seed is there twice"]),
}


@pytest.mark.parametrize(("old", "new", "line", "parts"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, old: str, new: str, line: int, parts: list[str]) -> None:
    assert old in VALID
    file = write(tmp_path, VALID.replace(old, new))
    message = problem(file)
    assert message.startswith(f"{file}:{line}: ")
    for part in parts:
        assert part in message


def test_all_mistakes_are_shown_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = VALID.replace("epochs: 3", "epoch: 3") + "student: {kind: sasrek}\nbaselines: [x]\nseeds: none\n"
    message = problem(write(tmp_path, text), "cluster.num_worker=2")
    assert message.startswith("5 errors in the configuration\n")
    assert re.findall(r"(?:yaml:(\d+)|command line): ", message) == ["6", "7", "8", "9", ""]


@pytest.mark.parametrize(
    ("override", "expected"),
    {
        "training.epoch=3": r"command line: training.epoch: unknown key; valid keys: .*did you mean 'epochs'",
        "nam=x": r"command line: nam: unknown key; valid keys: .*did you mean 'name'",
        "name.sub=1": r"command line: name.sub: name is a str, it has no keys",
        "epochs": r"command line: 'epochs': expected key=value",
        "seeds=[1, x]": r"command line: seeds.1: expected an integer, got 'x'",
    }.items(),
)
def test_a_wrong_override_gets_the_same_care(tmp_path: Path, override: str, expected: str) -> None:
    assert re.match(expected, problem(write(tmp_path, VALID), override))


def test_missing_keys_are_named(tmp_path: Path) -> None:
    message = problem(write(tmp_path, "name: x\n"))
    assert "data: missing" in message
    assert "input: missing" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: [a\ndata: x\n", r"demo\.yaml:\d+: column \d+: not valid YAML"),
        ("name: a\n\tdata: x\n", r"demo\.yaml:2: column 1: not valid YAML"),
        ("- a\n", "expected a mapping of keys to values, found list"),
        ("", "expected a mapping of keys to values, found NoneType"),
        ("name: !!python/object/apply:os.system ['true']\n", r"demo\.yaml:1: column 7: not valid YAML"),
        ("name: &a [*a]\n", "contains itself"),
        ("seen: 2020-13-45\n", "not valid YAML"),
    ],
)
def test_what_is_no_configuration(tmp_path: Path, text: str, expected: str) -> None:
    assert re.search(expected, problem(write(tmp_path, text)))


def test_a_missing_file(tmp_path: Path) -> None:
    assert problem(tmp_path / "no.yaml").endswith("no.yaml: cannot read the configuration: No such file or directory")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_bytes(b"\xff\xfe\x00")
    assert "it is not UTF-8 text" in problem(tmp_path / "demo.yaml")


def test_merge_keys_and_anchors_work(tmp_path: Path) -> None:
    base = "{kind: external, items: a.npy, states: b.npy}"
    text = VALID + f"teachers:\n  a: &base {base}\n  b:\n    <<: *base\n    pretrained: false\n"
    config = load_config(write(tmp_path, text))
    assert config.teachers["b"].kind == "external"


def test_lines_of_nested_keys(tmp_path: Path) -> None:
    source = read_source(write(tmp_path, VALID), {})
    assert source.where(("training", "epochs")).endswith(":6")
    assert source.where(("training", "unwritten")).endswith(":5")
    assert source.where(("nowhere",)) == source.file


def test_variants_are_checked_against_the_distillation(tmp_path: Path) -> None:
    content: dict[str, Any] = {**FULL, "variants": {"average": {"wieghts": "average"}, "prm-kd": {}}}
    message = problem(write_config(tmp_path, content))
    assert "variants.average.wieghts: unknown key; valid keys: base_weights" in message
    assert "variants.prm-kd: 'prm-kd' is the name of another student" in message


def test_distillation_from_a_teacher_that_the_run_lacks(tmp_path: Path) -> None:
    message = problem(write_config(tmp_path, FULL), "distillation.teachers=[txt]")
    assert "distillation.teachers.0: unknown teacher of this run 'txt'; known: id, text" in message


def test_item_geometry_needs_a_student_with_an_item_table(tmp_path: Path) -> None:
    content: dict[str, Any] = {
        **FULL,
        "student": {"kind": "fm"},
        "distillation": {"item_geometry": 0.5},
        "variants": {"off": {"item_geometry": 0.0}, "strong": {"item_geometry": 2.0}},
    }
    message = problem(write_config(tmp_path, content))
    expected = "item_geometry: the student 'fm' has no item table that could follow the teachers'; these have: sasrec, "
    assert f"distillation.{expected}" in message
    assert f"variants.strong.{expected}" in message
    assert "variants.off" not in message
    assert make_config(tmp_path, {**content, "student": {"kind": "gru4rec"}}).variant("strong")
    del content["student"]  # the default has one
    assert make_config(tmp_path, content).variant("strong")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("item_geometry=-1", "distillation.item_geometry: expected a value greater than or equal to 0, got -1"),
        ("item_temperature=0", "distillation.item_temperature: expected a value greater than 0, got 0"),
        ("weights=softly", "expected 'consistency', 'average' or 'default', got 'softly'"),
        ("base_weights=learnt", "expected 'strength' or 'uniform', got 'learnt'"),
    ],
)
def test_wrong_values_of_the_distillation(override: str, expected: str, tmp_path: Path) -> None:
    assert expected in problem(write_config(tmp_path, FULL), f"distillation.{override}")


def test_the_configuration_survives_a_round_trip(tmp_path: Path) -> None:
    config = make_config(tmp_path, FULL)
    again = load_config(write(tmp_path, yaml.safe_dump(config.model_dump(mode="json"))))
    assert again == config


def test_domain_data_lies_below_the_runs_data(tmp_path: Path) -> None:
    config = make_config(tmp_path, FULL, "data=s3://bucket/world")
    assert config.source("food").data == "s3://bucket/world/food"
    assert config.source("arts").data == "/arts"
    assert config.source().data == "s3://bucket/world"


def test_a_plain_run_has_no_distilled_student(tmp_path: Path) -> None:
    config = make_config(tmp_path, PLAIN_RUN)
    assert [variant.name for variant in config.students()] == ["mostpop", "plain"]
    assert config.variant("mostpop").student.kind == "mostpop"
    assert config.variant("plain").student.kind == "sasrec"
