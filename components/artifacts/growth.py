"""A saved model with more items: rows are appended to the tables of its items, everything else stays to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from components.artifacts.format import storage_error, write_json
from components.artifacts.models import load_model, read_model_config, read_tensors
from components.compression.quantization import appended
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
        tensors |= appended(tensors, stored, new)
    grown = config.model_copy(update={"num_items": config.num_items + added.pop()})
    try:
        save_file(tensors, target / MODEL_FILE)
        write_json(target / CONFIG_FILE, grown.model_dump(mode="json"))
    except OSError as error:
        raise storage_error(target, error) from error
    except SafetensorError as error:  # safetensors wraps the system's error, a full disk included
        raise storage_error(target / MODEL_FILE, OSError(0, str(error))) from error
    load_model(target)  # tensors that do not fit each other are found now
