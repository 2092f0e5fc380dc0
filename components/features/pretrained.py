"""Pre-trained models by Hugging Face name or local folder: loaded whole, or refused with what was tried."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from components.errors import ConfigError

UNUSED = "pooler."  # checkpoints of other tasks lack it, and nobody reads its output


def absolute_folder(name: str) -> str:
    """A local folder as an absolute path, any other name as it is: workers have another current folder.

    >>> absolute_folder("openai/clip-vit-base-patch32")
    'openai/clip-vit-base-patch32'
    """
    return str(Path(name).absolute()) if Path(name).is_dir() else name


def missing_folder(name: str) -> str:
    """What is wrong with a name that can only be a path; empty where nothing is.

    >>> missing_folder("./no-such-folder")
    "no folder './no-such-folder'; give one with config.json and model.safetensors, or a Hugging Face name"
    >>> missing_folder("openai/clip-vit-base-patch32")
    ''
    """
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1  # Hugging Face has OWNER/NAME and NAME
    if not is_path or Path(name).is_dir():
        return ""
    return f"no folder {name!r}; give one with config.json and model.safetensors, or a Hugging Face name"


@contextmanager
def loading(key: str, name: str, path: str, remedy: str) -> Iterator[None]:
    """Turn all that can go wrong while a model is loaded into one error.

    Args:
        key: of the configuration.
        name: of the model, as the user gave it.
        path: where it was looked for.
        remedy: what to give instead.

    Raises:
        ConfigError: in the place of whatever was raised inside.
    """
    from transformers.utils import logging as transformers_logging  # here: importing takes seconds

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        tried = f"{name!r}" if path == name else f"{name!r} at {path}"
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{key}: cannot load {tried} ({reason}); {remedy}") from error


def read_model_configuration(key: str, name: str, path: str, remedy: str) -> Any:
    """The configuration of a model of Hugging Face: whether it can be reached, long before its weights are needed.

    Args:
        key: see `loading`, as the others.
        name: of the model.
        path: where it is looked for.
        remedy: what to give instead.

    Raises:
        ConfigError: it cannot be read.
    """
    from transformers import AutoConfig  # here: importing takes seconds

    with loading(key, name, path, remedy):
        return AutoConfig.from_pretrained(path)


def load_weights(path: str, dtype: torch.dtype = torch.float32) -> Any:
    """A model of Hugging Face with all weights that its ``config.json`` asks for; no code of the model's own is run.

    Raises:
        ValueError: weights are missing or of another shape; transformers would take random ones.
    """
    from transformers import AutoModel  # here: importing takes seconds

    model, report = AutoModel.from_pretrained(
        path, dtype=dtype, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True
    )
    found = {"lack": report["missing_keys"], "have in another shape": [row[0] for row in report["mismatched_keys"]]}
    for what, names in found.items():
        wrong = sorted(name for name in names if not name.startswith(UNUSED))
        if wrong:
            raise ValueError(f"its weights {what} {len(wrong)} tensors of a {type(model).__name__}, such as {wrong[0]}")
    return model
