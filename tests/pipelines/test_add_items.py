"""New items from a file to the endpoint, on the synthetic world: nothing is trained after the export."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

import pipelines.distill
import pipelines.features
import pipelines.teach
from components.artifacts.format import read_manifest
from components.artifacts.models import load_model
from components.artifacts.registry import Registry
from components.data.item_text import NO_TEXT
from components.data.synthetic import write_world
from components.errors import ArtifactError, DataError, StageError, UserError
from components.recommender import Recommender
from components.scores_kept import check_scores, served_scores
from components.students import STUDENTS
from components.training.loop import World
from pipelines.add_items import add_items, undo
from pipelines.cache import sealed_digest, write_manifest
from pipelines.cli import app
from pipelines.config import COUNTING, RunConfig
from pipelines.driver import execute_run
from pipelines.graph import build_graph
from pipelines.new_item_table import REPEATED, ItemColumns
from pipelines.served import find_artifact
from pipelines.serving.item_encoder import item_keeping, items_notice
from pipelines.stages import STAGES, StageContext
from serve.backend import LocalBackend
from serve.growing import Growing
from serve.item_store import ItemStore
from tests.components.teachers.recformer.language_models import shared_bert
from tests.pipelines.recorder import Recorder
from tests.pipelines.run_configs import make_config
from tests.serve.test_app import make_client
from tests.tiny_artifact import make_model

SMALL = {"dim": 12, "inner_dim": 12, "num_layers": 1, "num_experts": 2, "max_length": 8}
BRIEF = {"epochs": 2, "batch_size": 32, "checkpoint_seconds": 0}
CONTENT: dict[str, Any] = {
    "name": "shop",
    "input": {
        "interactions": "gear/interactions.csv",
        "items": "gear/items.csv",
        "images": "gear/images",
        "text_columns": ["title", "category"],
    },
    "prepare": {"min_interactions_per_user": 3, "min_interactions_per_item": 2},
    "images": {},
    "teachers": {
        "text": {"kind": "unisrec", "mode": "inductive", "whitening": True, **SMALL, "training": BRIEF},
        "both": {"kind": "unim2rec", "mode": "transductive", **SMALL, "training": BRIEF},
    },
    "student": {"kind": "sasrec", "dim": 16, "inner_dim": 16, "max_length": 8},
    "training": BRIEF,
    "baselines": ["mostpop", "plain"],
    "evaluate": {"requests": 0, "bootstrap": 100},
}


@pytest.fixture(scope="module")
def here() -> Iterator[None]:
    """Models train and texts are encoded in this process, without Ray."""
    encode = pipelines.features.encode_texts
    with pytest.MonkeyPatch.context() as patch:
        for stage in (pipelines.teach, pipelines.distill):
            patch.setattr(stage, "run_training", lambda job, *_: job.run(World()))
        patch.setattr(pipelines.features, "available", lambda _: 0.0)
        patch.setattr(pipelines.features, "encode_texts", lambda *a, **k: encode(*a, **{**k, "alone": True}))
        yield


def configure(root: Path, **changes: Any) -> RunConfig:
    """A small shop, its log and items on disk."""
    if not (root / "world").is_dir():
        write_world(root / "world", num_users=120, num_items=80, seed=3, domains=["gear"])
    features = {"model": shared_bert(), "precision": "fp32"}
    return make_config(root, {**CONTENT, "data": str(root / "world"), "features": features, **changes})


def make_run(root: Path, **changes: Any) -> Path:
    """A run with the plain student exported; each stage is called as the executor would."""
    config = configure(root, **changes)
    digests: dict[str, str] = {}
    for node in build_graph(config):
        if node.stage in ("annotate", "evaluate"):
            continue  # the export of a student that was not distilled needs neither
        folder, work = config.folder / node.folder, config.folder / ".work" / node.name
        folder.mkdir(parents=True)
        work.mkdir(parents=True)
        inputs = {name: config.folder / name for name in node.inputs if name in digests}
        context = StageContext(config, node.name, node.suffix, folder, work, inputs, Recorder(), node.seed)
        STAGES[node.stage].load()(context)
        write_manifest(folder, node, "key", {name: digests[name] for name in inputs})
        digests[node.name] = sealed_digest(folder)
    return config.folder


@pytest.fixture(scope="module")
def finished(here: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, with the cache of encoded texts."""
    shutil.copytree(finished.parent, tmp_path / "runs")
    return tmp_path / "runs" / finished.name


def known_ids(run: Path) -> list[str]:
    ids: list[str] = pl.read_parquet(run / "export" / "items.parquet")["item_id"].to_list()
    return ids


def write_items(run: Path, count: int = 3, first: int = 0, **columns: list[Any]) -> str:
    """New items ``new-N``, each with the words of a known one."""
    items = pl.read_parquet(run / "prepare" / "items.parquet")[first : first + count]
    table = {
        "item_id": [f"new-{first + n}" for n in range(count)],
        "title": items["title"].to_list(),
        "category": items["category"].to_list(),
    }
    file = run.parent / f"new-{first}.csv"
    pl.DataFrame({**table, **columns}).write_csv(file)
    return str(file)


def add(run: Path, file: str, **columns: Any) -> Any:
    return add_items(run, file, ItemColumns(**columns), Recorder())


def table_without_extras(run: Path) -> torch.Tensor:
    """The table after the items of `write_items` were added anew, without pictures and under the run's own names."""
    shutil.rmtree(run / "releases")
    add(run, write_items(run))
    return load_model(find_artifact(run)).item_tensors()[0].fitted.detach()


def scores(artifact: Path, histories: list[list[int]]) -> NDArray[np.float32]:
    """(B, N) what the endpoint would say of every item."""
    return served_scores(load_model(artifact), [np.array(history, np.int32) for history in histories])


def check_growth(run: Path) -> None:
    """Added items are ranked and may stand in histories; known ones score to the bit as before; other parts stay."""
    before, known = find_artifact(run), known_ids(run)
    file = write_items(run)
    added = add(run, file)
    after = find_artifact(run)
    assert added.added == ["new-0", "new-1", "new-2"]
    assert (Path(added.artifact), added.version, added.num_items) == (after, "v0002", len(known) + 3)
    table = pl.read_parquet(after / "items.parquet")
    assert table["item_id"].to_list() == [*known, *added.added]
    assert table["count"].to_list()[-3:] == [0, 0, 0]
    assert table["item"].to_list() == list(range(1, len(known) + 4))
    kinds = pl.read_csv(file)["category"].to_list()
    grown = Recommender(after)
    given = [grown.item(name) for name in added.added]
    assert [item[1].get("category") for item in given if item] == [kind.split(", ") if kind else None for kind in kinds]
    histories = [[1], [2, 5, 9], [4, 3, 2, 1, 7, 8, 9, 10, 11]]
    np.testing.assert_array_equal(scores(before, histories), scores(after, histories)[:, : len(known)])
    with make_client(LocalBackend(Recommender(after))) as client:
        body = client.post("/v1/recommend", json={"history": ["new-1", known[0]], "k": len(known) + 3}).json()
        found = client.get("/v1/items", params={"query": "new-2"}).json()["items"]
    assert body["unknown_items"] == []
    assert body["model"] == added.model != Recommender(before).name
    assert {"new-0", "new-2"} <= {item["item_id"] for item in body["items"]}
    assert len({item["score"] for item in body["items"] if item["item_id"].startswith("new-")}) == 2
    assert [item["item_id"] for item in found] == ["new-2"]


def check_endpoint(run: Path) -> None:
    """Items that are posted to the endpoint of a run get the very rows that the command gives them."""
    keeping = item_keeping(run / "export")
    assert keeping is not None
    assert keeping.encoder is not None
    table = pl.read_csv(write_items(run, first=10), schema_overrides={"title": pl.String, "category": pl.String})
    items = [
        {"item_id": row["item_id"], "text": {"title": row["title"], "category": row["category"]}}
        for row in table.iter_rows(named=True)
    ]
    growing = Growing(ItemStore(keeping.store), keeping.encoder)
    known = known_ids(run)
    with make_client(LocalBackend(Recommender(run / "export"), growing)) as client:
        said = client.get("/v1/model").json()["new_items"]
        assert (said["text"], said["why_not"]) == (["title", "category"], None)
        answer = client.post("/v1/items", json={"items": items})
        assert answer.json()["added"] == ["new-10", "new-11", "new-12"], answer.text
        histories = [[known[0]], [known[4], "new-11", known[2]]]
        posted = [
            client.post("/v1/recommend", json={"history": history, "k": 1000, "exclude_seen": False}).json()["items"]
            for history in histories
        ]
    added = add(run, write_items(run, first=10))
    offline = Recommender(added.artifact).recommend(histories, 1000, exclude_seen=False)
    assert posted == [
        [{"item_id": item.item_id, "title": item.title, "score": item.score} for item in one.items] for one in offline
    ]
    shutil.rmtree(run / "releases")


def test_the_endpoint_gives_an_item_the_rows_that_the_command_gives_it(run: Path) -> None:
    check_endpoint(run)


def test_what_an_endpoint_can_take_is_said_when_it_starts(run: Path, tmp_path: Path) -> None:
    known, keeping = Recommender(run / "export"), item_keeping(run / "export", "redis://127.0.0.1:6379/0")
    assert keeping is not None
    assert keeping.store == run.resolve() / "serving" / "items.sqlite"
    notice = items_notice(known, keeping)
    assert notice == "POST /v1/items takes new items by texts (title, category) or vectors of both (12), text (12)"
    copy = shutil.copytree(run / "export", tmp_path / "models" / "shop")
    assert "no place to be kept" in items_notice(known, item_keeping(copy))
    alone = item_keeping(copy, str(tmp_path / "kept"))
    assert alone is not None
    assert alone.store == tmp_path / "kept" / "items.sqlite"
    assert "not by texts: the artifact is not served from the folder of its run" in items_notice(known, alone)
    assert items_notice(known, item_keeping(copy, str(tmp_path / "kept"), run)) == notice
    shutil.rmtree(run / "teach" / "text")
    assert "teach/text: missing" in items_notice(known, item_keeping(run / "export"))
    with pytest.raises(UserError, match="teach/text: missing"):
        item_keeping(copy, str(tmp_path / "kept"), run)


def test_new_items_are_ranked_and_known_ones_score_as_before(run: Path) -> None:
    check_growth(run)
    assert Recommender(run / "export").num_items == len(known_ids(run)), "the export itself stays"
    assert read_manifest(find_artifact(run))["added"]["items"] == 3


def test_the_executor_hands_the_export_what_new_items_need(ray_session: None, tmp_path: Path) -> None:
    config = configure(tmp_path, distillation={"temperature": 0.1}, baselines=["mostpop"])
    execute_run(config)
    assert read_manifest(config.folder / "export")["new_items"]["teachers"] == {"both": 12, "text": 12}
    check_growth(config.folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in STUDENTS if kind not in COUNTING and kind != "sasrec"])
def test_every_student_takes_new_items(kind: str, here: None, tmp_path: Path) -> None:
    fields = {"item_fields": ["category"]} if kind in ("fm", "deepfm") else {}
    run = make_run(tmp_path, student={"kind": kind, "dim": 16, **fields})
    check_endpoint(run)
    check_growth(run)
    if fields:
        table = next(one for one in load_model(find_artifact(run)).item_tensors() if one.attribute)
        assert table.fitted[-3:].tolist() == table.fitted[1:4].tolist(), "new items take the values of their own words"


def test_an_item_with_the_words_of_another_is_ranked_beside_it(run: Path) -> None:
    """The teachers know nothing but words here, and the projection passes them on: copies are neighbors."""
    add(run, write_items(run, count=20))
    (table,) = load_model(find_artifact(run)).item_tensors()
    rows = torch.nn.functional.normalize(table.fitted.detach(), dim=1)
    known = len(known_ids(run))
    likeness = rows[-20:] @ rows[1 : known + 1].t()  # (20, N)
    own = likeness.diagonal().mean()
    others = (likeness.sum() - likeness.diagonal().sum()) / (likeness.numel() - 20)
    assert own > others + 0.05


def test_a_second_addition_goes_on_and_undo_goes_back(run: Path) -> None:
    first = add(run, write_items(run))
    second = add(run, write_items(run, first=3))
    assert second.version == "v0003"
    assert second.num_items == first.num_items + 3
    assert read_manifest(find_artifact(run))["added"]["items"] == 6
    before, after = (scores(Path(one.artifact), [[1, 2], [first.num_items]]) for one in (first, second))
    np.testing.assert_array_equal(before, after[:, : first.num_items])
    assert undo(run).model == first.model
    assert Recommender(find_artifact(run)).num_items == first.num_items
    assert undo(run).num_items == len(known_ids(run))
    with pytest.raises(UserError, match="nothing to undo; no items were added since the export"):
        undo(run)
    assert [release.version for release in Registry(run / "releases").releases("export")] == ["v0001", "v0002", "v0003"]


def test_items_that_are_known_are_left_as_they_are(run: Path) -> None:
    known = known_ids(run)[5]
    file = write_items(run, item_id=["new-0", known, "new-2"], title=["Rugged tent", "Something else", "Rope"])
    added = add(run, file)
    assert (added.added, added.known, added.refused) == (["new-0", "new-2"], [known], {})
    before = pl.read_parquet(run / "export" / "items.parquet")
    assert pl.read_parquet(find_artifact(run) / "items.parquet")[: before.height].equals(before)
    again = add(run, file)
    assert (again.added, again.known, again.version) == ([], ["new-0", known, "new-2"], "")
    assert len(Registry(run / "releases").releases("export")) == 2


def test_what_cannot_be_added_is_refused_one_by_one(run: Path) -> None:
    ids = ["new-0", "twice", "twice", "mute", ""]
    file = write_items(run, 5, item_id=ids, title=["Tent", "A", "B", "", "C"], category=["camp", "a", "b", "", "c"])
    added = add(run, file)
    assert added.added == ["new-0"]
    assert added.refused == {"twice": REPEATED, "mute": NO_TEXT}
    assert added.unusable_rows == 1
    lines = list(added.lines())
    assert f"  mute: {NO_TEXT}" in lines
    assert "1 rows without an id" in lines


def test_a_file_of_which_nothing_can_be_used_changes_nothing(run: Path) -> None:
    file = write_items(run, 2, item_id=["a", "b"], title=["", ""], category=["", ""])
    with pytest.raises(DataError, match=r"no item of it can be added: 2 × no text.* \(a, b\); 0 are known already"):
        add(run, file)
    assert not (run / "releases").exists()


def test_pictures_are_read_and_broken_ones_counted(run: Path, finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    source = next((finished.parents[1] / "world" / "gear" / "images").iterdir())
    shutil.copy(source, folder / f"new-0{source.suffix}")
    (folder / "new-1.png").write_bytes(b"\x89PNG no more")
    added = add(run, write_items(run), images=str(folder))
    assert added.added == ["new-0", "new-1", "new-2"]
    assert added.pictures["with_image"] == 1
    assert added.pictures["absent"] == {"missing": 1, "not a picture": 1}
    (table,) = load_model(find_artifact(run)).item_tensors()
    plain = table_without_extras(run)
    assert not torch.allclose(table.fitted[-3], plain[-3], atol=1e-4), "the picture has a say"
    torch.testing.assert_close(table.fitted[-1].detach(), plain[-1], rtol=1e-4, atol=1e-5)


def test_other_names_of_columns_are_mapped(run: Path) -> None:
    items = pl.read_csv(write_items(run)).rename({"item_id": "sku", "title": "name"})
    file = run.parent / "named.csv"
    items.write_csv(file)
    with pytest.raises(DataError, match=r"named.csv: no column 'item_id'; it has: sku, .*--id-column NAME"):
        add(run, str(file))
    with pytest.raises(DataError, match=r"no column 'title'; it has: .*--text-column title=NAME"):
        add(run, str(file), item_id="sku")
    with pytest.raises(DataError, match=r"--text-column titel=name: the run has no text column 'titel'.*'title'"):
        add(run, str(file), item_id="sku", texts={"titel": "name"})
    mapped = add(run, str(file), item_id="sku", texts={"title": "name"})
    (table,) = load_model(Path(mapped.artifact)).item_tensors()
    torch.testing.assert_close(table.fitted[-3:].detach(), table_without_extras(run)[-3:], rtol=1e-4, atol=1e-5)


def test_a_file_that_is_no_table_is_said(run: Path) -> None:
    with pytest.raises(DataError, match=r"FILE: .*nowhere.csv does not exist"):
        add(run, "nowhere.csv")
    (run.parent / "empty.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"empty.parquet: cannot be read as parquet"):
        add(run, str(run.parent / "empty.parquet"))


def test_a_part_of_the_run_that_changed_since_is_said(run: Path) -> None:
    file = write_items(run)
    manifest = run / "teach" / "text" / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    with pytest.raises(ArtifactError, match=r"teach/text: was made again since the export; run `distilrec export"):
        add(run, file)
    shutil.rmtree(run / "teach" / "both")
    with pytest.raises(UserError, match=r"teach/both: missing; give the folder of the whole run"):
        add(run, file)


def test_after_another_export_the_old_additions_do_not_serve(run: Path) -> None:
    added = add(run, write_items(run))
    assert find_artifact(run) == Path(added.artifact)
    manifest = json.loads((run / "export" / "manifest.json").read_text())
    manifest["reason"], _ = "another", manifest.pop("digest")
    (run / "export" / "manifest.json").write_text(json.dumps(manifest))
    assert find_artifact(run) == (run / "export").resolve()


def test_a_run_without_teachers_says_what_to_do(here: None, tmp_path: Path) -> None:
    run = make_run(tmp_path, teachers={}, images=None)
    with pytest.raises(UserError, match=r"no teacher of the run reads item texts.*Add a teacher of kind unisrec"):
        add(run, write_items(run))


def test_a_baseline_says_why_it_cannot(here: None, tmp_path: Path) -> None:
    run = make_run(tmp_path, export={"model": "mostpop"})
    with pytest.raises(UserError, match="mostpop keeps no table of item vectors"):
        add(run, write_items(run))


def test_the_command(run: Path) -> None:
    def call(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["add-items", str(run), *arguments])

    shown = call(write_items(run), "--json")
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["added"] == ["new-0", "new-1", "new-2"]
    assert "undo" not in call("--undo").output
    for wrong, message in (
        ((), "give FILE, a table of new items, or --undo"),
        ((write_items(run), "--undo"), "and not both"),
        ((write_items(run), "--text-column", "name"), "expected OURS=THEIRS"),
    ):
        answer = call(*wrong)
        assert answer.exit_code == 2
        assert message in " ".join(answer.stderr.split())
    answer = CliRunner().invoke(app, ["add-items", str(run / "export"), write_items(run)])
    assert answer.exit_code == 2
    assert "is no run folder" in answer.stderr


def test_changed_scores_are_not_released() -> None:
    before, _ = make_model()
    after, _ = make_model()
    check_scores(before, after)
    with torch.no_grad():
        after.state_dict()["item_embedding.weight"][7] += 0.01
    with pytest.raises(StageError, match=r"scores of known items changed by up to"):
        check_scores(before, after)
    with torch.no_grad():
        after.state_dict()["item_embedding.weight"][7] = np.nan
    with pytest.raises(StageError, match="scores NaN or infinity"):
        check_scores(before, after)
