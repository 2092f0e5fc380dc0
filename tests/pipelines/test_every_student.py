"""Every student is distilled, compared, exported and served by a change of one line: its kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from components.artifacts.models import load_model
from components.data.batching import history_batch
from components.data.prepared import PreparedSet
from components.recommender import Recommender
from components.students import STUDENTS
from pipelines import distill, evaluate, export
from pipelines.config import COUNTING
from serve.backend import LocalBackend
from tests.pipelines.run_configs import make_config
from tests.pipelines.test_teach_and_distill import CONTENT, Run, run
from tests.serve.test_app import make_client

pytestmark = pytest.mark.slow
__all__ = ["run"]  # the fixture
PLAIN, TAUGHT = "distill/plain/seed-0", "distill/prm-kd/seed-0"


BLOCKS = {"boundaries": [5, 12], "factor": 2}
SHARED = {**BLOCKS, "output": "tied", "sharing": "ab"}
SMALLER = {"sasrec": BLOCKS, "nextitnet": SHARED, "gru4rec": BLOCKS, "bert4rec": SHARED}
KINDS = [
    *(pytest.param(kind, None, id=kind) for kind in STUDENTS if kind not in COUNTING),
    *(pytest.param(kind, compression, id=f"small-{kind}") for kind, compression in SMALLER.items()),
]


@pytest.mark.parametrize(("kind", "compression"), KINDS)
def test_one_line_makes_another_student(
    kind: str, compression: dict[str, Any] | None, run: Run, tmp_path: Path
) -> None:
    own = Run.__new__(Run)  # the teachers of the shared run, and a folder of its own for everything after them
    own.root = tmp_path
    for shared in ("prepare", "annotate"):
        (tmp_path / shared).symlink_to(run.root / shared)
    student = {"kind": kind} | ({"compression": compression} if compression else {})
    content = {**CONTENT, "student": student, "variants": {}, "evaluate": {"requests": 0, "bootstrap": 100}}
    geometry = 0.5 if STUDENTS[kind].item_embedding else 0.0
    overrides = ("training.epochs=1", "distillation.candidates=all", f"distillation.item_geometry={geometry}")
    own.config = make_config(tmp_path, content, *overrides)
    own.config.folder.mkdir(parents=True)

    own.call(distill, PLAIN, "prepare")
    taught, _ = own.call(distill, TAUGHT, "annotate")
    assert sum(json.loads((taught / "distillation.json").read_text())["mean_weights"].values()) == pytest.approx(1.0)
    compared, _ = own.call(evaluate, "evaluate", "prepare", PLAIN, TAUGHT)
    rows = {row["name"]: row for row in json.loads((compared / "leaderboard.json").read_text())["rows"]}
    assert rows.keys() == {"plain", "prm-kd"}

    artifact, _ = own.call(export, "export", "prepare", "evaluate", PLAIN, TAUGHT)
    recommender, history = Recommender(artifact), ["i3", "i4", "i5"]
    with make_client(LocalBackend(recommender)) as client:
        body = client.post("/v1/recommend", json={"history": history, "k": 5}).json()
    model, numbers = load_model(artifact).eval(), PreparedSet(tmp_path / "prepare").item_ids
    with torch.no_grad():
        scores = model.all_scores(history_batch([[numbers.index(item) + 1 for item in history]], model.max_length))[0]
    scores[[0, *(numbers.index(item) + 1 for item in history)]] = -torch.inf
    served = [item["item_id"] for item in body["items"]]
    assert len(set(served)) == 5
    assert set(served).isdisjoint(history)
    found = torch.tensor([scores[numbers.index(item) + 1] for item in served])
    torch.testing.assert_close(found, scores.topk(5).values, rtol=1e-4, atol=1e-5)
