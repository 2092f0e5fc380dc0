"""A model with more items, saved or in memory: rows are appended to its items' tables, all else stays to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from components.artifacts.format import storage_error, write_json
from components.artifacts.models import (
    ModelConfig,
    build_model,
    load_model,
    read_model_config,
    read_tensors,
    stored_precision,
)
from components.compression.quantization import appended, dequantized, quantized
from components.model import Ranker
from components.schema import CONFIG_FILE, MODEL_FILE


def grow_model(source: Path, target: Path, rows: Mapping[str, Tensor]) -> None:
    """Write the model of `source` into the existing folder `target`, with new items behind the known ones.

    Args:
        source: a model artifact.
        target: where to write; whoever owns it seals it.
        rows: (M, ...) rows of the new items by tensor, one entry for every tensor that has a row per item.

    Raises:
        ValueError: no rows, rows of a tensor that the model lacks, or of another number or width.
        ArtifactError: the artifact is damaged, or a tensor that has a row per item was not given any.
        StorageError: the folder cannot be written.
    """
    config, tensors = read_model_config(source), read_tensors(source / MODEL_FILE)
    for stored, new in _checked(config, tensors, rows).items():
        tensors |= appended(tensors, stored, new)
    grown = _with_more(config, rows)
    try:
        save_file(tensors, target / MODEL_FILE)
        write_json(target / CONFIG_FILE, grown.model_dump(mode="json"))
    except OSError as error:
        raise storage_error(target, error) from error
    except SafetensorError as error:  # safetensors wraps the system's error, a full disk included
        raise storage_error(target / MODEL_FILE, OSError(0, str(error))) from error
    load_model(target)  # tensors that do not fit each other are found now


@torch.no_grad()
def grown_model(model: Ranker, config: ModelConfig, rows: Mapping[str, Tensor]) -> tuple[Ranker, ModelConfig]:
    """The model that `grow_model` and `load_model` would give, without the disk; `model` stays as it is.

    Args:
        model: on the CPU, as it was loaded.
        config: what it is.
        rows: as for `grow_model`.

    Raises:
        ValueError: as for `grow_model`.
        ArtifactError: a tensor that has a row per item was not given any.
    """
    tensors, precision_of = dict(model.state_dict()), stored_precision(model, config.arguments)
    for stored, new in _checked(config, tensors, rows).items():
        kept = dequantized(quantized({stored: new}, precision_of))[stored]
        tensors[stored] = torch.cat([tensors[stored], kept.to(tensors[stored].dtype)])
    tensors |= {alias: tensors[stored] for alias, stored in config.shared.items()}
    grown = _with_more(config, rows)
    return build_model(grown, tensors), grown


def _checked(config: ModelConfig, tensors: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The rows by the names of the tensors that are stored."""
    added = {len(new) for new in rows.values()}
    if len(added) != 1:
        raise ValueError(f"expected as many rows for every tensor, got {sorted(added)}")
    for name, new in rows.items():
        stored = config.shared.get(name, name)
        if stored not in tensors:
            raise ValueError(f"the model has no tensor {name!r}; it has: {', '.join(sorted(tensors))}")
        old = tensors[stored]
        if new.shape[1:] != old.shape[1:]:
            raise ValueError(f"{name}: rows of shape {tuple(old.shape[1:])} expected, got {tuple(new.shape[1:])}")
    return {config.shared.get(name, name): new for name, new in rows.items()}


def _with_more(config: ModelConfig, rows: Mapping[str, Tensor]) -> ModelConfig:
    return config.model_copy(update={"num_items": config.num_items + len(next(iter(rows.values())))})
