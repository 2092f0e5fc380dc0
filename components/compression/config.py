"""How a student is compressed."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from components.compression.blocks import FREQUENT, Blocks, geometric_ranks, partition, partition_by_frequency
from components.compression.quantization import Precision
from components.compression.sharing import Sharing
from components.errors import ConfigError


class CompressionConfig(BaseModel):
    """Arguments of a compressed student (CpRec, Sun et al. 2020).

    The paper's names: B1 is one block with ``output: flat``; Bi has ``output: full``; Bo ``input: full``; Bio, the
    default, compresses both sides; CpRec is Bio with a `sharing`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Literal["blocks", "full"] = Field("blocks", description="item vectors that the network reads")
    output: Literal["tree", "flat", "tied", "full"] = Field(
        "tree",
        description="tree: two-level softmax; flat: one over all blocks; tied: flat, with the input's vectors; full: "
        "vectors of its own, uncompressed",
    )
    num_blocks: int = Field(3, ge=1, description="blocks of items by frequency")
    rule: Literal["items", "frequency"] = Field(
        "items",
        description="items: `share` of the items left, again and again; frequency: equal shares of interactions",
    )
    share: float = Field(
        FREQUENT, gt=0, lt=1, description="of the items left, those of the next block; the paper's 2:8"
    )
    boundaries: tuple[PositiveInt, ...] | None = Field(
        None, description="last item of every block but the last, in place of num_blocks and rule"
    )
    factor: int = Field(4, ge=1, description="a block's vectors are narrower than those before it by this factor")
    ranks: tuple[PositiveInt, ...] | None = Field(None, description="widths of the blocks' vectors, in place of factor")
    sharing: Sharing = Field("none", description="layers that share weights; ab: neighboring blocks do")
    item_precision: Precision = Field(
        "fp32", description="in which item vectors and output are stored once trained; int8 has a scale per item"
    )
    network_precision: Precision = Field("fp32", description="the same of all else; int8 has a scale per row")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        blocks = self.num_blocks if self.boundaries is None else len(self.boundaries) + 1
        if self.boundaries and any(low >= high for low, high in pairwise(self.boundaries)):
            raise ValueError(f"boundaries must rise, got {list(self.boundaries)}")
        if self.ranks and len(self.ranks) != blocks:
            raise ValueError(f"ranks: expected one for each of {blocks} blocks, got {list(self.ranks)}")
        if self.ranks and any(low < high for low, high in pairwise(self.ranks)):
            raise ValueError(f"ranks must not rise from frequent to rare items, got {list(self.ranks)}")
        if self.output == "tree" and blocks < 2:
            raise ValueError("output: a tree needs at least 2 blocks; use flat for one")
        if self.input == "full" and self.output == "tied" and self.sharing == "none" and not self.quantizes:
            raise ValueError(
                "nothing is compressed: input: full, output: tied, no layer is shared and all numbers are fp32; use "
                "input: blocks, output: tree, a sharing, or item_precision: int8"
            )
        return self

    @property
    def quantizes(self) -> bool:
        """Whether the trained student is rounded."""
        return (self.item_precision, self.network_precision) != ("fp32", "fp32")

    def precision_of(self, part: str) -> Precision:
        """In which a tensor of a part of the student ("embedding", "network", "head") is stored."""
        return self.network_precision if part == "network" else self.item_precision

    def check_width(self, dim: int) -> None:
        """Refuse ranks that a model of width `dim` cannot have.

        Raises:
            ValueError: a rank is above `dim`, or a tree's first block has another one.
        """
        if self.ranks and self.ranks[0] > dim:
            raise ValueError(f"compression.ranks: {self.ranks[0]} is above dim, {dim}")
        if self.ranks and self.output == "tree" and self.ranks[0] != dim:
            raise ValueError(f"compression.ranks: the first block of a tree has the width of the model, {dim}")

    def blocks(self, counts: NDArray[np.int64], dim: int) -> Blocks:
        """The blocks of a catalog.

        Args:
            counts: (N,) training interactions of items 1..N.
            dim: D.

        Raises:
            ConfigError: a boundary lies beyond the catalog, or there are more blocks than items.
        """
        num_items = len(counts)
        if self.boundaries is not None:
            if self.boundaries and self.boundaries[-1] >= num_items:
                raise ConfigError(
                    f"compression.boundaries: {self.boundaries[-1]} leaves the last block no item; "
                    f"the catalog has {num_items}"
                )
            ends = (*self.boundaries, num_items)
        else:
            by_frequency = self.rule == "frequency" and counts.any()
            sizes = (
                partition_by_frequency(counts, self.num_blocks)
                if by_frequency
                else partition(num_items, self.num_blocks, self.share)
            )
            ends = tuple(np.cumsum(sizes).tolist())
        return Blocks(ends, self.ranks or geometric_ranks(dim, len(ends), self.factor))
