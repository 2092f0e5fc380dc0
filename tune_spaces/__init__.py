"""Search spaces by name; each says which values some keys of the configuration may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tune_spaces import compression, depth, distillation, quantization, regularization, width
from tune_spaces.domain import Domain, Space

SPACES: Final[Mapping[str, Space]] = {
    "compression": compression.SPACE,
    "quantization": quantization.SPACE,
    "width": width.SPACE,
    "depth": depth.SPACE,
    "distillation": distillation.SPACE,
    "regularization": regularization.SPACE,
}

__all__ = ["SPACES", "Domain", "Space"]
