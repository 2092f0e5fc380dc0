"""Every teacher of a configuration with several seeds, against the plain student; nothing is distilled.

    python -m benchmarks.teachers configs/scientific-teachers.yaml student.dim=256 --json FILE
    python -m benchmarks.teachers configs/scientific-teachers.yaml --only unisrec unim2rec --seeds 0 1 2

Teachers that are pre-trained share one pre-training: the configuration's own stage ``pretrain`` runs first. Then a run
``NAME-seeds`` holds each teacher once per seed. It is an ordinary run: started twice, it goes on where it was.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.quality import main as show_quality
from pipelines.config_file import apply_overrides, read_source

SECTIONS_OF_STUDENTS = ("distillation", "variants", "pretrain")


def multiply(config: dict[str, Any], seeds: Sequence[int], only: Sequence[str]) -> dict[str, Any]:
    """The configuration with each teacher once per seed, named ``TEACHER-sSEED``, and only plain students."""
    teachers = {}
    for name, section in config["teachers"].items():
        if only and name not in only:
            continue
        if section.get("pretrained") is True:
            pretrained = Path(config.get("output", "runs")) / config["name"] / "pretrain" / name
            section = {**section, "pretrained": str(pretrained)}
        teachers |= {f"{name}-s{seed}": {**section, "seed": seed} for seed in seeds}
    kept = {key: value for key, value in config.items() if key not in SECTIONS_OF_STUDENTS}
    return {**kept, "name": f"{config['name']}-seeds", "seeds": list(seeds), "teachers": teachers}


def distilrec(*arguments: str) -> None:
    """One command of the package, in a process of its own; its messages are ours."""
    subprocess.run([sys.executable, "-m", "pipelines", *arguments], check=True)


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments of every experiment with the run of all seeds."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", help="key=value")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=[], help="teachers of the run; default: all")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser


def read_config(options: argparse.Namespace) -> dict[str, Any]:
    """The configuration that the arguments name, with their overrides."""
    source = read_source(options.config)
    apply_overrides(source, options.overrides)
    return source.data


def main(arguments: Sequence[str] | None = None) -> None:
    options = make_parser(__doc__).parse_args(arguments)
    config = read_config(options)
    run = multiply(config, options.seeds, options.only)
    if any(isinstance(teacher.get("pretrained"), str) for teacher in run["teachers"].values()):
        distilrec("pretrain", str(options.config), *options.overrides)
    folder = Path(config.get("output", "runs"))
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{run['name']}.yaml"
    file.write_text(yaml.safe_dump(run, sort_keys=False), encoding="utf-8")
    distilrec("run", str(file))
    show_quality([str(folder / run["name"]), *(["--json", str(options.json)] if options.json else [])])


if __name__ == "__main__":
    main()
