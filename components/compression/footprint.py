"""Parameters in closed form: what a student will weigh before it is built (CpRec, Tables 2 to 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from components.compression.blocks import Blocks, geometric_ranks
from components.compression.sharing import Sharing, shared_kernels


def table(num_items: int, dim: int) -> int:
    """A vector of width `dim` per item."""
    return num_items * dim


def block_tables(blocks: Blocks, dim: int) -> int:
    """Vectors in blocks, and the projection of every block that is narrower than the model.

    >>> block_tables(Blocks((7000, 15000, 54000), (512, 128, 32)), 512)
    5937920
    """
    sizes = zip(blocks.sizes, blocks.ranks, strict=True)
    return sum(size * rank + (rank * dim if rank < dim else 0) for size, rank in sizes)


def tree(blocks: Blocks, dim: int) -> int:
    """A two-level softmax: the same, and a row of the root for every block but the first."""
    return block_tables(blocks, dim) + (len(blocks) - 1) * dim


def convolutions(
    num_blocks: int,
    dim: int,
    sharing: Sharing = "none",
    *,
    kernel_size: int = 3,
    biases: bool = True,
    norms: bool = True,
) -> int:
    """NextItNet's blocks of two convolutions; kernels and their biases may be shared, the layer norms never are.

    >>> convolutions(1, 512, "al", norms=False)
    786944
    """
    kernels = len({number for pair in shared_kernels(num_blocks, sharing) for number in pair})
    return kernels * (kernel_size * dim**2 + biases * dim) + norms * 2 * num_blocks * 2 * dim


def gru(dim: int, hidden_dim: int, *, bias_vectors: int = 1) -> int:
    """A recurrent layer of three gates; TensorFlow has one vector of biases per gate, PyTorch two, ours none.

    >>> gru(512, 512)
    1574400
    """
    return 3 * hidden_dim * (dim + hidden_dim) + bias_vectors * 3 * hidden_dim


@dataclass(frozen=True)
class Published:
    """A model of the paper.

    Attributes:
        num_items: K, in thousands as printed.
        dim: d.
        num_blocks: residual blocks of NextItNet; 0: one GRU layer as wide as d.
        boundaries: last item of every block but the last; ranks fall by a factor of 4.
    """

    num_items: int
    dim: int
    num_blocks: int
    boundaries: tuple[int, ...]

    def blocks(self) -> Blocks:
        """Its blocks of items."""
        ends = (*self.boundaries, self.num_items)
        return Blocks(ends, geometric_ranks(self.dim, len(ends), 4))

    def parameters(
        self,
        *,
        blocks_in: bool = False,
        blocks_out: bool = False,
        sharing: Sharing = "none",
        biases: bool = True,
    ) -> dict[str, int]:
        """Parameters by part: embedding, network, head and their total.

        Args:
            blocks_in: whether the input is compressed.
            blocks_out: whether the output is a tree.
            sharing: of the convolutions.
            biases: count the biases of convolutions and of the full softmax, and the layer norms.
        """
        full = table(self.num_items, self.dim)
        embedding = block_tables(self.blocks(), self.dim) if blocks_in else full
        head = tree(self.blocks(), self.dim) if blocks_out else full + biases * self.num_items
        if self.num_blocks:
            network = convolutions(self.num_blocks, self.dim, sharing, biases=biases, norms=biases)
        else:
            network = gru(self.dim, self.dim)
        return {"total": embedding + network + head, "embedding": embedding, "network": network, "head": head}


ML_BOUNDARIES: Final = (7000, 15000)
PUBLISHED: Final = {  # Weishi and TikTok did not publish theirs; these agree with every rounded column
    "nextitnet-weishi": Published(66_000, 512, 4, (3000, 6000)),
    "nextitnet-ml20": Published(54_000, 512, 4, ML_BOUNDARIES),
    "nextitnet-tiktok": Published(514_000, 512, 8, (30_000, 100_000, 350_000, 360_000)),
    "nextitnet-ml100": Published(54_000, 512, 16, ML_BOUNDARIES),
    "gru4rec-weishi": Published(66_000, 512, 0, (3000, 6000)),
    "gru4rec-ml100": Published(54_000, 512, 0, ML_BOUNDARIES),
}
