from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from components.compression.blocks import Blocks, geometric_ranks, partition, partition_by_frequency
from components.compression.config import CompressionConfig
from components.compression.sharing import Sharing, shared_kernels
from components.errors import ConfigError
from components.students import STUDENTS


def test_partition_takes_two_of_ten_again_and_again() -> None:
    """Check K9."""
    assert partition(100, 3) == (20, 16, 64)
    assert partition(66000, 3) == (13200, 10560, 42240)
    assert partition(514000, 5) == (102800, 82240, 65792, 52634, 210534)


@pytest.mark.parametrize("num_blocks", range(1, 8))
def test_every_block_has_an_item(num_blocks: int) -> None:
    generator = np.random.default_rng(num_blocks)
    for num_items in range(num_blocks, 40):
        counts = np.sort(generator.zipf(1.5, num_items))[::-1]
        for sizes in (partition(num_items, num_blocks), partition_by_frequency(counts, num_blocks)):
            assert len(sizes) == num_blocks
            assert min(sizes) >= 1
            assert sum(sizes) == num_items
    with pytest.raises(ConfigError, match=f"{num_blocks} blocks need as many items, the catalog has {num_blocks - 1}"):
        partition(num_blocks - 1, num_blocks)


def test_blocks_by_frequency_share_the_interactions() -> None:
    counts = np.sort(np.random.default_rng(0).zipf(1.3, 5000).clip(max=500))[::-1]
    borders = np.cumsum(partition_by_frequency(counts, 4))[:-1]
    shares = [part.sum() / counts.sum() for part in np.split(counts, borders)]
    assert shares == pytest.approx([0.25] * 4, abs=0.01)


def test_ranks_shrink_and_end_at_one() -> None:
    assert geometric_ranks(512, 3, 4) == (512, 128, 32)
    assert geometric_ranks(8, 4, 4) == (8, 2, 1, 1)
    assert geometric_ranks(512, 1, 4) == (128,)


def test_items_know_their_block() -> None:
    blocks = Blocks((2, 3, 7), (4, 2, 1))
    assert blocks.of(torch.arange(1, 8)).tolist() == [0, 0, 1, 2, 2, 2, 2]
    assert (blocks.sizes, blocks.starts, len(blocks), blocks.num_items) == ((2, 1, 4), (1, 3, 4), 3, 7)


@pytest.mark.parametrize(
    ("ends", "ranks", "message"),
    [
        ((3, 3), (4, 2), "every block needs an item, but they end at 3, 3"),
        ((), (), "every block needs an item, but they end at nothing"),
        ((3, 5), (4,), r"expected one per block \(2\), got 4"),
        ((3, 5), (4, 0), "expected at least 1 each, got 4, 0"),
    ],
)
def test_impossible_blocks_are_refused(ends: tuple[int, ...], ranks: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Blocks(ends, ranks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"boundaries": [5, 5]}, r"boundaries must rise, got \[5, 5\]"),
        ({"boundaries": [5], "ranks": [8, 4, 2]}, r"ranks: expected one for each of 2 blocks, got \[8, 4, 2\]"),
        ({"ranks": [4, 8, 2]}, "ranks must not rise"),
        ({"num_blocks": 1}, "a tree needs at least 2 blocks"),
        ({"input": "full", "output": "tied"}, "nothing is compressed: input: full, output: tied"),
        ({"ranks": [128, 8, 4]}, "128 is above dim, 64"),
        ({"ranks": [32, 8, 4]}, "the first block of a tree has the width of the model, 64"),
        ({"sharing": "al"}, "compression.sharing: this student knows none, cb, ab, not al"),
        ({"bloks": 2}, "Extra inputs are not permitted"),
    ],
)
def test_contradictions_are_refused_before_anything_is_built(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        STUDENTS["sasrec"].config.model_validate({"compression": arguments})


def test_a_loss_that_the_output_cannot_serve_is_refused() -> None:
    with pytest.raises(ValidationError, match="loss: gbce needs output: tied or full; a tree output has a softmax"):
        STUDENTS["gru4rec"].config.model_validate({"compression": {}, "loss": "gbce"})
    with pytest.raises(ValidationError, match=r"compression\.output: this student knows tied, not tree"):
        STUDENTS["recguru"].config.model_validate({"compression": {}})


def test_boundaries_beyond_the_catalog_are_refused() -> None:
    with pytest.raises(ConfigError, match="7 leaves the last block no item; the catalog has 7"):
        CompressionConfig(boundaries=(3, 7)).blocks(np.ones(7, np.int64), 8)
    assert CompressionConfig(boundaries=(3, 6)).blocks(np.ones(7, np.int64), 8) == Blocks((3, 6, 7), (8, 2, 1))


@pytest.mark.parametrize(
    ("num_blocks", "sharing", "expected"),
    [
        *((4, sharing, number) for sharing, number in (("none", 8), ("cl", 1), ("cb", 2), ("al", 4), ("ab", 4))),
        *((16, sharing, number) for sharing, number in (("none", 32), ("cl", 1), ("cb", 2), ("al", 16), ("ab", 16))),
        (3, "ab", 4),
    ],
)
def test_distinct_kernels(num_blocks: int, sharing: Sharing, expected: int) -> None:
    """Check K5."""
    assert len({number for pair in shared_kernels(num_blocks, sharing) for number in pair}) == expected
