"""Install the peers from PyPI, each into a virtual environment of its own below benchmarks/.envs.

    python -m benchmarks.environments                 all peers that are not there yet
    python -m benchmarks.environments rectools replay only these
    python -m benchmarks.environments --force recbole again, from nothing

Every environment has the same torch as ours, so that a ratio compares libraries and not builds of torch.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import venv
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = Path(__file__).resolve().parent / ".envs"
READY = "ready.json"  # written last: what was asked for when the environment was built
OURS = "distilrec"


@dataclass(frozen=True)
class Patch:
    """A textual change to an installed file, without which the peer does not run here."""

    file: str  # below site-packages
    old: str
    new: str
    reason: str


@dataclass(frozen=True)
class Peer:
    """How one peer is installed.

    Attributes:
        package: what is measured, with its version.
        requirements: what it needs besides, as written for pip.
        own_dependencies: let pip resolve the package's own list; False where that list cannot be met here.
        patches: changes to the installed files.
    """

    package: str
    requirements: tuple[str, ...] = ()
    own_dependencies: bool = True
    patches: tuple[Patch, ...] = field(default=())


PEERS: dict[str, Peer] = {
    "rectools": Peer(
        "rectools[torch]==0.17.0", ("pyarrow<21",)
    ),  # with which pandas reads our log; newer ones want numpy 2
    "replay": Peer("replay-rec[torch]==0.22.0"),
    "recbole": Peer(
        "recbole==1.2.1",
        # Its own list asks for a Ray of 2023, which only its hyper-parameter search uses; numpy 2 and pandas 3 removed
        # names that it calls.
        (
            "numpy<2",
            "pandas<2.3",
            "scipy<1.14",
            "scikit-learn<1.6",
            "colorlog==4.7.2",
            "colorama==0.4.4",
            "pyyaml",
            "tqdm",
            "tensorboard",
            "tabulate",
            "texttable",
            "thop",
            "plotly<6",
            "psutil",
            "setuptools<80",
        ),
        own_dependencies=False,
        patches=(
            Patch(
                "recbole/model/general_recommender/lightgcn.py",
                "A._update(data_dict)",
                "A._dict.update(data_dict)",
                "scipy 1.13 has no dok_matrix._update",
            ),
        ),
    ),
    "warprec": Peer(
        "warprec==2.2.8",
        (
            "coolname",
            "hyperopt",
            "lightning>=2.6.1,<3",
            "loguru",
            "narwhals>=2.15,<3",
            "numpy>=2.2.2,<3",
            "optuna>=4.5,<5",
            "pandas>=2.2.3,<3",
            "polars>=1.36,<2",
            "pydantic>=2.10.6,<3",
            "ray[data,train,tune]>=2.54,<3",
            "scikit-learn>=1.6.1,<2",
            "scipy>=1.15.1,<2",
            "tabulate>=0.9,<0.10",
            "tensorboard",
            "tensorboardx",
            "torchmetrics>=1.8.2,<2",
            "setuptools<80",
        ),
        own_dependencies=False,
        patches=(
            Patch(
                "warprec/utils/config/common.py",
                "{'\\t'}",
                "{chr(9)}",
                "a backslash inside an f-string expression needs Python 3.12; so does the package by its metadata",
            ),
        ),
    ),
}


def python_of(name: str) -> Path:
    """The interpreter of a contender's environment; ours is the one that runs this process."""
    return Path(sys.executable) if name == OURS else ENVIRONMENTS / name / "bin" / "python"


def is_ready(name: str) -> bool:
    """Whether the environment was built to the end, from what `PEERS` says now."""
    if name == OURS:
        return True
    stamp = ENVIRONMENTS / name / READY
    return stamp.is_file() and json.loads(stamp.read_text()) == json.loads(json.dumps(asdict(PEERS[name])))


def install_commands(name: str, torch_version: str) -> list[list[str]]:
    """The pip calls that fill a fresh environment."""
    peer = PEERS[name]
    pip = [str(python_of(name)), "-m", "pip", "install", "--quiet"]
    torch = f"torch=={torch_version}"
    if peer.own_dependencies:
        return [[*pip, torch, peer.package, *peer.requirements]]
    return [
        [*pip, torch, *peer.requirements],
        [*pip, "--no-deps", "--ignore-requires-python", peer.package],
    ]


def apply_patch(site_packages: Path, patch: Patch) -> None:
    """Change one installed file; raises where the text is not in it."""
    path = site_packages / patch.file
    text = path.read_text(encoding="utf-8")
    if patch.old not in text:
        raise ValueError(f"{path}: expected {patch.old!r}; the package changed, see Patch(reason={patch.reason!r})")
    path.write_text(text.replace(patch.old, patch.new), encoding="utf-8")


def build(name: str, torch_version: str) -> None:
    """Make the environment of one peer; a half-built one is removed first."""
    folder = ENVIRONMENTS / name
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    for command in install_commands(name, torch_version):
        subprocess.run(command, check=True)
    site_packages = next((folder / "lib").glob("python*/site-packages"))
    for patch in PEERS[name].patches:
        apply_patch(site_packages, patch)
    (folder / READY).write_text(json.dumps(asdict(PEERS[name]), indent=1))


def installed_torch() -> str:
    """Version of our own torch without its local part, such as ``2.13.0``."""
    from importlib.metadata import version

    return version("torch").split("+")[0]


def main(arguments: list[str] | None = None) -> int:
    """Build what is asked for; returns 1 where a peer could not be installed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"of {', '.join(PEERS)}; default: all")
    parser.add_argument("--force", action="store_true", help="build again even where it is there")
    parser.add_argument("--torch", default=None, help="torch version of the environments; default: ours")
    options = parser.parse_args(arguments)
    unknown = set(options.peers) - set(PEERS)
    if unknown:
        parser.error(f"unknown peers {sorted(unknown)}; known: {', '.join(PEERS)}")
    failed = []
    for name in options.peers or list(PEERS):
        if is_ready(name) and not options.force:
            print(f"{name}: already there", file=sys.stderr)
            continue
        print(f"{name}: installing {PEERS[name].package}", file=sys.stderr)
        try:
            build(name, options.torch or installed_torch())
        except (subprocess.CalledProcessError, ValueError) as error:
            print(f"{name}: not installed: {error}", file=sys.stderr)
            failed.append(name)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
