"""Save a ranker as configuration and tensors, and build it again; no pickle on either way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from components.artifacts.format import REMEDY, read_json, storage_error, verify, write_json
from components.compression.config import CompressionConfig
from components.compression.quantization import Precision, dequantized, quantized, stored_bytes
from components.errors import ArtifactError, UnknownNameError
from components.model import Catalog, ModelSpec, Ranker
from components.schema import CONFIG_FILE, MANIFEST_FILE, MODEL_FILE

Family = Literal["student", "teacher", "baseline"]


class ModelConfig(BaseModel):
    """``config.json`` of a model artifact.

    Attributes:
        kind: the name in the registry of its family.
        family: which registry builds it; baselines are registered among the students.
        arguments: what the registry's configuration takes.
        num_items: N.
        num_users: U.
        feature_dims: columns of every named item feature that the model was built with.
        shared: names of tensors that are the same memory as another; only the other one is stored.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    family: Family
    arguments: dict[str, Any]
    num_items: int = Field(ge=1)
    num_users: int = Field(ge=0)
    feature_dims: dict[str, int] = {}
    shared: dict[str, str] = {}


def save_model(
    model: Ranker, folder: Path, *, kind: str, family: Family, arguments: Mapping[str, Any], catalog: Catalog
) -> None:
    """Write ``config.json`` and ``model.safetensors`` into an existing folder.

    Where the arguments say so (``compression.item_precision``), numbers are rounded on the way.

    Args:
        model: the model; its whole state is in its parameters and persistent buffers.
        folder: where to write; whoever owns the folder seals it with a manifest.
        kind: the model's name in its registry.
        family: which registry that is.
        arguments: the arguments with which the registry built it, of JSON types.
        catalog: the catalogue for which it was built.

    Raises:
        StorageError: the folder cannot be written.
    """
    tensors, shared = _unique(model.state_dict())
    tensors = quantized(tensors, stored_precision(model, arguments))
    config = ModelConfig(
        kind=kind,
        family=family,
        arguments=dict(arguments),
        num_items=catalog.num_items,
        num_users=catalog.num_users,
        feature_dims={name: int(matrix.shape[1]) for name, matrix in catalog.features.items()},
        shared=shared,
    )
    try:
        save_file(tensors, folder / MODEL_FILE)
        write_json(folder / CONFIG_FILE, config.model_dump(mode="json"))
    except OSError as error:
        raise storage_error(folder, error) from error
    except SafetensorError as error:  # safetensors wraps the system's error, a full disk included
        raise storage_error(folder / MODEL_FILE, OSError(0, str(error))) from error


def _unique(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tied weights once: (tensors to store, {alias: stored name})."""
    tensors: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    owners: dict[tuple[object, ...], str] = {}
    for name, tensor in state.items():
        place = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape, tensor.stride())
        if tensor.numel() and place in owners:
            shared[name] = owners[place]
        else:
            owners[place] = name
            tensors[name] = tensor.detach().to("cpu", copy=True).contiguous()  # a copy: views may overlap
    return tensors, shared


def read_model_config(folder: Path) -> ModelConfig:
    """Read ``config.json`` of a model artifact.

    Raises:
        ArtifactError: it is missing, damaged, or lacks a key.
    """
    try:
        return ModelConfig.model_validate(read_json(folder / CONFIG_FILE))
    except ValidationError as error:
        raise ArtifactError(f"{folder / CONFIG_FILE}: no model configuration ({_first(error)}); {REMEDY}") from error


def load_model(folder: Path) -> Ranker:
    """Build the model that `folder` holds, in evaluation mode on the CPU.

    Where the folder has a manifest, both files are checked against it first. Features are not read: the model is
    built with zeros of the recorded widths and then takes its saved tensors.

    Raises:
        ArtifactError: a file is missing, changed or truncated, or does not fit the model that it names.
    """
    if (folder / MANIFEST_FILE).is_file():
        verify(folder, only=(CONFIG_FILE, MODEL_FILE))
    config = read_model_config(folder)
    tensors = dequantized(read_tensors(folder / MODEL_FILE))
    try:
        return build_model(config, tensors)
    except ArtifactError as error:
        raise ArtifactError(f"{folder / CONFIG_FILE}: {error}") from error


def build_model(config: ModelConfig, tensors: Mapping[str, Tensor]) -> Ranker:
    """Build the model that `config` names, in evaluation mode, with copies of `tensors` (fp32; tied ones once).

    Raises:
        ArtifactError: the tensors do not fit the model, or it cannot be built.
    """
    try:
        complete = {**tensors, **{alias: tensors[name] for alias, name in config.shared.items()}}
        model = _spec(config).make(_empty_catalog(config), config.arguments)
        model.load_tensors(complete)
    except (UnknownNameError, ValidationError, KeyError, RuntimeError) as error:
        reason = _first(error) if isinstance(error, ValidationError) else str(error).splitlines()[0]
        raise ArtifactError(f"the model cannot be built ({reason}); {REMEDY}") from error
    return model.eval()


def stored_precision(model: Ranker, arguments: Mapping[str, Any]) -> Callable[[str], Precision]:
    """In which precision a tensor of `model` is stored, by its name; `arguments` built the model."""
    compression = arguments.get("compression")
    if compression is None:
        return lambda name: "fp32"
    config = CompressionConfig.model_validate(compression)
    return lambda name: config.precision_of(model.part_of(name))


def stored_bytes_by_part(model: Ranker, arguments: Mapping[str, Any]) -> dict[str, int]:
    """Bytes that `save_model` writes, but for names and shapes: embedding, network, head and their total.

    Counted from shapes, so the model may be without memory.
    """
    precision_of = stored_precision(model, arguments)
    parts, seen = {"embedding": 0, "network": 0, "head": 0}, set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            parts[model.part_of(name)] += stored_bytes({name: tensor}, precision_of)
    return {"total": sum(parts.values()), **parts}


def round_to_stored(model: Ranker, arguments: Mapping[str, Any]) -> bool:
    """Give the model the numbers that `save_model` will keep of it; returns whether any is rounded."""
    precision_of, state = stored_precision(model, arguments), model.state_dict()
    if all(precision_of(name) == "fp32" for name in state):
        return False
    model.load_tensors(dequantized(quantized(state, precision_of)))
    return True


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors by name, as they are stored.

    Raises:
        ArtifactError: the file is missing, truncated or damaged.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: missing; {REMEDY}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path}: truncated or damaged ({error}); {REMEDY}") from error


def _spec(config: ModelConfig) -> ModelSpec:
    known = registry_of(config.family)
    if config.kind not in known:
        raise UnknownNameError(config.family, config.kind, known)
    return known[config.kind]


def registry_of(family: Family) -> Mapping[str, ModelSpec]:
    """The registry that builds a family's models."""
    from components.students import STUDENTS  # here, so that reading a configuration loads no model code
    from components.teachers import TEACHERS

    return TEACHERS if family == "teacher" else STUDENTS


def _empty_catalog(config: ModelConfig) -> Catalog:
    rows = config.num_items + 1
    return Catalog(
        num_items=config.num_items,
        num_users=config.num_users,
        counts=np.zeros(rows, np.int64),
        features={name: np.zeros((rows, width), np.float32) for name, width in config.feature_dims.items()},
    )


def _first(error: ValidationError) -> str:
    detail = error.errors()[0]
    return f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}"
