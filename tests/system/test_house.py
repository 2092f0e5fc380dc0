"""Promises about the repository: what its files must not contain, and that what README and Makefile say is so."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from packaging.requirements import Requirement
from packaging.version import Version

from components.data.synthetic import item_id, make_world
from pipelines.cli import app
from pipelines.config import RunConfig
from pipelines.load_config import load_config

ROOT = Path(__file__).parents[2]
UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
UNSAFE_KEYWORDS = {"shell": True, "weights_only": False, "trust_remote_code": True}
LARGEST = 512 * 1024  # bytes of a file that is kept in the repository


def tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("no git repository")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def violations(source: str, *, is_test: bool) -> list[str]:
    """What a Python file does that no file of ours may do."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom) and not is_test:  # a test may write one, to see it refused
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [f"imports {name}" for name in names if name.split(".")[0] in UNSAFE_MODULES]
        elif isinstance(node, ast.Call):
            found += unsafe_call(node, is_test)
        elif isinstance(node, ast.ExceptHandler) and all(isinstance(child, ast.Pass) for child in node.body):
            found.append(f"silent except in line {node.lineno}")
    return found


def unsafe_call(call: ast.Call, is_test: bool) -> Iterator[str]:
    name = ast.unparse(call.func) if isinstance(call.func, ast.Attribute | ast.Name) else ""
    given = {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}
    yield from (f"{key}={bad}" for key, bad in UNSAFE_KEYWORDS.items() if given.get(key, not bad) is bad)
    if name in {"yaml.load", "yaml.unsafe_load", "eval", "exec", "os.system"}:
        yield f"calls {name}"
    if name == "torch.load" and given.get("weights_only") is not True:
        yield "torch.load without weights_only"
    if name == "time.sleep" and is_test:
        yield "sleeps in a test"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import pickle", "imports pickle"),
        ("from joblib import load", "imports joblib"),
        ("yaml.load(text)", "calls yaml.load"),
        ("subprocess.run(command, shell=True)", "shell=True"),
        ("torch.load(path, weights_only=False)", "weights_only=False"),
        ("torch.load(path)", "torch.load without weights_only"),
        ("try:\n    f()\nexcept OSError:\n    pass", "silent except in line 3"),
        ("time.sleep(1)", "sleeps in a test"),
    ],
)
def test_the_search_finds_what_it_looks_for(source: str, expected: str) -> None:
    assert expected in violations(source, is_test=expected.endswith("test"))


def test_no_file_does_what_none_may_do() -> None:
    found = {
        str(path.relative_to(ROOT)): bad
        for path in tracked()
        if path.suffix == ".py"
        and (bad := violations(path.read_text(encoding="utf-8"), is_test="tests" in path.relative_to(ROOT).parts))
    }
    assert not found


def test_no_file_names_this_machine_or_a_registry() -> None:
    forbidden = re.compile("|".join(["/wo" + "rk/", r"index-u" + "rl", r"pypi\.o" + "rg", "files.python" + "hosted"]))
    for path in tracked():
        if path.stat().st_size < LARGEST:
            text = path.read_text(encoding="utf-8", errors="replace")
            assert not forbidden.search(text), f"{path}: {forbidden.search(text)}"


def test_no_large_or_generated_file_is_kept() -> None:
    for path in tracked():
        assert path.stat().st_size <= LARGEST, f"{path} is too large for the repository"
        assert not {"runs", ".venv", "__pycache__"} & set(path.relative_to(ROOT).parts), path


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_package_of_the_tree_is_installed() -> None:
    tops = {"components", "pipelines", "serve", "tune_spaces"}
    tree = {".".join(path.parent.relative_to(ROOT).parts) for top in tops for path in (ROOT / top).rglob("__init__.py")}
    assert set(project()["tool"]["setuptools"]["packages"]) == tree
    assert set(project()["tool"]["importlinter"]["root_packages"]) == tops


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [re.fullmatch(r"([A-Za-z0-9_.-]+)==([0-9][^+\s]*)", line) for line in lines if not line.startswith("#")]
    assert all(pinned), "constraints.txt holds names and versions only, without build suffix"
    return {canonical(match[1]): match[2] for match in pinned if match}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_is_pinned_to_a_version_that_it_allows() -> None:
    described = project()["project"]
    extra = [line for name, lines in described["optional-dependencies"].items() if name == "dev" for line in lines]
    pinned = pins()
    for requirement in map(Requirement, described["dependencies"] + extra):
        version = pinned.get(canonical(requirement.name))
        assert version is not None, f"constraints.txt lacks {requirement.name}"
        assert requirement.specifier.contains(Version(version)), f"{requirement} forbids the pinned {version}"


def readme_blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def readme_commands() -> list[list[str]]:
    return [shlex.split(line) for block in readme_blocks("sh") for line in block.splitlines() if line]


def test_every_command_of_the_readme_exists() -> None:
    group: Any = typer.main.get_command(app)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = readme_commands()
    assert {"make", "distilrec", "curl"} <= {command[0] for command in commands}
    for command in commands:
        if command[0] == "make":
            assert re.search(rf"^{command[1]}:", makefile, flags=re.MULTILINE), command
        elif command[0] == "distilrec":
            known = group.commands[command[1]]
            options = {option for parameter in known.params for option in parameter.opts}
            assert {word for word in command[2:] if word.startswith("-")} <= options, command
            assert all((ROOT / word).is_file() for word in command if word.startswith("configs/"))


def test_the_readme_asks_the_endpoint_for_items_that_the_demo_has() -> None:
    curl = next(command for command in readme_commands() if command[0] == "curl")
    history = json.loads(curl[curl.index("-d") + 1])["history"]
    recommend = next(command for command in readme_commands() if command[:2] == ["distilrec", "recommend"])
    assert recommend[recommend.index("--history") + 1].split(",") == history, "both show the same ranking"
    (gear,) = make_world(domains=["gear"])
    often = {item_id("gear", row) for row in set(gear.items.tolist()) if (gear.items == row).sum() >= 10}
    assert set(history) <= often


def test_the_readmes_own_configuration_is_valid(tmp_path: Path) -> None:
    (block,) = readme_blocks("yaml")
    (tmp_path / "mine.yaml").write_text(block, encoding="utf-8")
    config = load_config(tmp_path / "mine.yaml", ["training.epochs=5", "seeds=[0,1,2]"])
    assert [variant.name for variant in config.students()] == ["mostpop", "markov", "plain", "prm-kd"]


def test_the_readme_has_one_line_for_each_folder() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)/` \|", text, flags=re.MULTILINE)
    parts = [path.relative_to(ROOT).parts for path in tracked()]
    folders = {part[0] for part in parts if len(part) > 1 and not part[0].startswith(".")}
    assert sorted(listed) == sorted(folders)


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_is_valid(file: Path) -> None:
    config = load_config(file)
    assert isinstance(config, RunConfig)
    assert config.name == file.stem
    assert {"mostpop", "markov"} <= set(config.baselines), "the baselines stand in every leaderboard"


def test_continuous_integration_runs_the_checks_and_the_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = script.read_text(encoding="utf-8").splitlines()
    assert "set -euo pipefail" in lines
    called = [line.split(" <")[0] for line in lines if line.startswith("make")]
    assert called == ["make check", "make demo", "make readme", "make test"]


def test_the_licence_is_the_one_that_is_declared() -> None:
    assert project()["project"]["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
