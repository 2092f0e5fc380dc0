"""Wrong files and models from outside stop a run before anything trains."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.data.prepared import PreparedSet
from components.errors import ConfigError, DataError, DistilrecError
from pipelines.config import RunConfig
from pipelines.graph import Node, build_graph
from pipelines.preflight import check_sources
from tests.pipelines.fake_stages import FakeStages
from tests.pipelines.run_configs import FULL, make_config
from tests.pipelines.test_teach_and_distill import CONTENT, ITEMS, write_prepared

WIDTH = 4


@pytest.fixture
def arrays(tmp_path: Path) -> dict[str, Any]:
    """A good external teacher of the prepared set in the run folder."""
    write_prepared(tmp_path / "runs" / "tiny" / "prepare")
    instances = PreparedSet(tmp_path / "runs" / "tiny" / "prepare").sequences.num_instances
    for name, rows in (("items", ITEMS + 1), ("states", instances)):
        np.save(tmp_path / f"{name}.npy", np.ones((rows, WIDTH), np.float32))
    files = {name: str(tmp_path / f"{name}.npy") for name in ("items", "states")}
    return {"kind": "external", **files, "strength": 0.1}


def config_with(folder: Path, **teachers: dict[str, Any]) -> RunConfig:
    return make_config(folder, {**CONTENT, "teachers": teachers})


def check(config: RunConfig) -> None:
    check_sources(config, build_graph(config))


def test_good_sources_pass(arrays: dict[str, Any], tmp_path: Path) -> None:
    check(config_with(tmp_path, mine=arrays, own={"kind": "unisrec"}, words={"kind": "recformer"}))


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("items", np.ones((ITEMS, WIDTH)), "items + 1"),
        ("items", np.full((ITEMS + 1, WIDTH), np.nan), "NaN"),
        ("states", np.ones((7, WIDTH)), "rows"),
    ],
)
def test_every_wrong_teacher_is_named(
    arrays: dict[str, Any], tmp_path: Path, name: str, array: np.ndarray[Any, Any], message: str
) -> None:
    wrong = tmp_path / "wrong.npy"
    np.save(wrong, array.astype(np.float32))
    nobody = {**arrays, "strength": None}
    with pytest.raises(DataError) as raised:
        check(config_with(tmp_path, mine=arrays, bad={**arrays, name: str(wrong)}, weak=nobody))
    lines = str(raised.value).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("teach/bad: ")
    assert str(wrong) in lines[0]
    assert message in lines[0]
    assert lines[1].startswith("teach/weak: teachers.weak.strength: missing")


def test_language_models_are_looked_up(arrays: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "gpt"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(ConfigError, match=r"^teach/words: backbone: .*'gpt2'; Recformer can start from: bert"):
        check(config_with(tmp_path, words={"kind": "recformer", "backbone": str(folder)}))
    (folder / "config.json").write_text("{")
    config = make_config(tmp_path, CONTENT, f"features.model={folder}")
    with pytest.raises(ConfigError, match=r"^features: features\.model: cannot load"):
        check(config)
    images = {**CONTENT, "input": {**CONTENT["input"], "images": "images"}, "images": {"encoder": str(folder)}}
    with pytest.raises(ConfigError, match=r"^features: images\.encoder: cannot load"):
        check(make_config(tmp_path, images))


def test_a_language_model_of_several_teachers_is_looked_up_once(arrays: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    words = {"kind": "recformer", "backbone": str(tmp_path / "broken")}
    with pytest.raises(ConfigError) as raised:
        check(config_with(tmp_path, one=words, two=words))
    assert str(raised.value).count("cannot load") == 1


def test_blocks_must_fit_the_catalog(arrays: dict[str, Any], tmp_path: Path) -> None:
    plain = {key: value for key, value in CONTENT.items() if key not in ("teachers", "distillation", "variants")}

    def student(boundaries: list[int]) -> RunConfig:
        compression = {"boundaries": boundaries, "output": "tied"}
        return make_config(tmp_path, {**plain, "student": {**CONTENT["student"], "compression": compression}})

    check(student([5, ITEMS - 1]))
    with pytest.raises(
        ConfigError, match=r"^distill/plain/seed-0: compression\.boundaries: 25 leaves the last block no"
    ):
        check(student([5, ITEMS]))


def test_what_is_done_is_not_looked_at_again(tmp_path: Path, arrays: dict[str, Any]) -> None:
    config = config_with(tmp_path, mine={**arrays, "items": str(tmp_path / "gone.npy")})
    check_sources(config, [node for node in build_graph(config) if node.stage != "teach"])
    with pytest.raises(DistilrecError, match=r"^teach/mine: .*gone\.npy"):
        check(config)


def test_nothing_trains_after_a_failed_check(tmp_path: Path) -> None:
    stages = FakeStages(make_config(tmp_path, FULL))
    asked: list[list[str]] = []

    def refuse(missing: Sequence[Node]) -> None:
        asked.append([node.name for node in missing])
        raise DataError("teach/id: no such file")

    stages.preflight = refuse
    with pytest.raises(DataError, match=r"^teach/id: no such file$"):
        stages.run()
    assert {name.split("/")[0] for name in stages.ran} == {"prepare", "features"}
    assert len(asked) == 1
    stages.preflight = lambda missing: asked.append([node.name for node in missing])
    stages.run()
    assert "export" in stages.ran
    assert "teach/id" in asked[1]
    assert not {"prepare", "prepare/food"} & set(asked[1])
    stages.run()
    assert len(asked) == 2  # nothing trains, nothing is checked
