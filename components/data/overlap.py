"""Which items of one catalog also stand in another, by their texts."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
NO_TEXT = 0  # the hash of an item without text, which equals no other


def text_hashes(texts: Iterable[str]) -> Hashes:
    """(N,) 64-bit hashes; case and white space do not count, `NO_TEXT` where there is nothing else.

    >>> one, other, none = text_hashes(["Blue  Lamp", "blue lamp ", " "])
    >>> bool(one == other), int(none)
    (True, 0)
    """
    return np.array([_hash(" ".join(text.casefold().split())) for text in texts], dtype=np.uint64)


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()) if text else NO_TEXT


def shared(source: Hashes, target: Hashes) -> NDArray[np.bool_]:
    """(len(source),) which items of `source` have the text of an item of `target`.

    >>> shared(np.array([5, 0, 7], np.uint64), np.array([0, 7], np.uint64)).tolist()
    [False, False, True]
    """
    found: NDArray[np.bool_] = np.isin(source, target) & (source != NO_TEXT)
    return found
