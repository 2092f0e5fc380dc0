"""`distilrec onnx`: what it writes and says, and that a file which computes something else is never left behind."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx", reason="the extra onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from components.errors import StageError, UserError  # noqa: E402
from components.recommender import Recommender  # noqa: E402
from pipelines import onnx  # noqa: E402
from pipelines.onnx import FILE, Answer, Written, export_onnx  # noqa: E402
from tests.tiny_artifact import write_artifact  # noqa: E402


def test_the_file_recommends_what_the_artifact_does(tmp_path: Path) -> None:
    write_artifact(tmp_path / "run" / "export")
    written = export_onnx(tmp_path / "run")
    assert Path(written.file) == tmp_path / "run" / "onnx" / FILE
    assert 0 <= written.max_difference < 1e-4
    assert min(written.onnx_ms, written.torch_ms, written.bytes) > 0
    assert sorted(path.name for path in Path(written.file).parent.iterdir()) == ["items.parquet", FILE]
    ids = pl.read_parquet(written.items)["item_id"].to_list()
    session = onnxruntime.InferenceSession(written.file, providers=["CPUExecutionProvider"])
    scores = session.run(None, {"items": np.array([[ids.index("id-3") + 1]])})[0][0]
    scores[ids.index("id-3")] = -np.inf
    expected = Recommender(tmp_path / "run" / "export").recommend([["id-3"]], 5)[0]
    assert [ids[place] for place in np.argsort(-scores)[:5]] == [item.item_id for item in expected.items]


@pytest.mark.parametrize("wrong", [0.01, np.nan, np.inf])
def test_a_file_that_scores_otherwise_is_refused(wrong: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_artifact(tmp_path / "run" / "export")
    runtime = onnx._runtime

    def one_score_off(file: Path) -> Answer:
        right = runtime(file)

        def answer(history: NDArray[np.int32]) -> NDArray[np.float32]:
            scores: NDArray[np.float32] = right(history)
            scores[-1] += wrong
            return scores

        return answer

    monkeypatch.setattr(onnx, "_runtime", one_score_off)
    with pytest.raises(StageError, match="a score differs by"):
        export_onnx(tmp_path / "run", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_folder_that_is_no_place_is_refused(tmp_path: Path) -> None:
    write_artifact(tmp_path / "run" / "export")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="file: is a file; give a folder"):
        export_onnx(tmp_path / "run", tmp_path / "file")
    with pytest.raises(UserError, match="holds an artifact, whose files are sealed"):
        export_onnx(tmp_path / "run", tmp_path / "run" / "export")


def test_missing_packages_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_artifact(tmp_path / "run" / "export")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install 'distilrec\[onnx\]'"):
        export_onnx(tmp_path / "run")


def test_a_slower_file_is_called_slower() -> None:
    assert "slower: 0.50 times the speed" in Written("f", "i", 1, 0.0, onnx_ms=2.0, torch_ms=1.0).lines()[-1]
    assert "2.0 times as fast" in Written("f", "i", 1, 0.0, onnx_ms=1.0, torch_ms=2.0).lines()[-1]
