"""Vectors of texts that were encoded before, content-addressed, shared by all runs."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from components.errors import StorageError

KEY_BYTES: Final = 16
logger = logging.getLogger(__name__)

FloatTable = NDArray[np.float32]


def text_key(text: str) -> bytes:
    """What a text is found by."""
    return hashlib.blake2b(text.encode(), digest_size=KEY_BYTES).digest()


class VectorCache:
    """Vectors by text, in files named by their own hash; a damaged file is left out, with a warning.

    Args:
        folder: common folder of all settings.
        settings: hash of everything but the text that decides a vector; each has its own folder.
    """

    def __init__(self, folder: Path, settings: str) -> None:
        self.folder = folder / settings

    def load(self, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The vectors of those of `texts` that were stored."""
        wanted = {text_key(text): text for text in texts}
        found: dict[str, NDArray[np.float32]] = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            for key, vector in self._read(path):
                if key in wanted:
                    found[wanted[key]] = vector
        return found

    def store(self, texts: Sequence[str], vectors: FloatTable) -> None:
        """Keep `vectors` (n, d) of `texts`; the file appears whole or not at all.

        Raises:
            StorageError: the disk is full or cannot be written.
        """
        keys = np.frombuffer(b"".join(text_key(text) for text in texts), np.uint8).reshape(-1, KEY_BYTES)
        content = save({"keys": np.ascontiguousarray(keys), "vectors": np.ascontiguousarray(vectors)})
        path = self.folder / f"{hashlib.sha256(content).hexdigest()}.safetensors"
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                partial.write_bytes(content)
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{path}: cannot be written ({error.strerror}); free space or move `output`") from error

    def _read(self, path: Path) -> list[tuple[bytes, NDArray[np.float32]]]:
        try:
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != path.stem:
                raise ValueError("its hash is not its name")
            tensors = load(content)
            return [(key.tobytes(), vector) for key, vector in zip(tensors["keys"], tensors["vectors"], strict=True)]
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            logger.warning("%s: damaged (%s); its texts are encoded again", path, error)
            return []
