"""Checkpoints without pickle: tensors as safetensors, everything else as JSON, renamed into place when whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from components.errors import ArtifactError

TENSORS = "tensors.safetensors"
STATE = "state.json"


@dataclass
class Checkpoint:
    """All that a training run needs to go on as if it had never stopped.

    Attributes:
        tensors: model, optimizer and best model, by prefixed name.
        state: epoch, step within the epoch, history and counters; JSON.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)


def write_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Write `checkpoint` as `folder`, replacing an older one; a kill leaves the older one or the new one, whole."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file({name: value.contiguous() for name, value in checkpoint.tensors.items()}, partial / TENSORS)
    digest = hashlib.sha256((partial / TENSORS).read_bytes()).hexdigest()
    (partial / STATE).write_text(json.dumps({"sha256": digest, **checkpoint.state}), encoding="utf-8")
    previous = folder.with_name(folder.name + ".previous")
    shutil.rmtree(previous, ignore_errors=True)
    if folder.exists():
        os.replace(folder, previous)
    os.replace(partial, folder)
    shutil.rmtree(previous, ignore_errors=True)


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """Read the newest whole checkpoint at `folder`, or None when there is none.

    Raises:
        ArtifactError: the tensors do not match their hash.
    """
    for candidate in (folder, folder.with_name(folder.name + ".previous")):
        if (candidate / STATE).is_file():
            return _read(candidate)
    return None


def _read(folder: Path) -> Checkpoint:
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    digest = hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest()
    if digest != state.pop("sha256"):
        raise ArtifactError(f"{folder / TENSORS}: damaged checkpoint (sha256 differs); delete {folder} to train afresh")
    return Checkpoint(load_file(folder / TENSORS), state)


def model_tensors(model: nn.Module, prefix: str) -> dict[str, Tensor]:
    """A copy of all that training changes in the model, on the CPU, under `prefix`."""
    return {f"{prefix}{name}": value.detach().cpu().clone() for name, value in _changing(model)}


def load_parameters(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy named tensors into the model."""
    with torch.no_grad():
        for name, value in _changing(model):
            value.copy_(tensors[name])


def _changing(model: nn.Module) -> list[tuple[str, Tensor]]:
    """The parameters, and the buffers that the model names as trained."""
    buffers = [(name, model.get_buffer(name)) for name in getattr(model, "trained_buffers", ())]
    return [*model.named_parameters(), *buffers]


def select(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
