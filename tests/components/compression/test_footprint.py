"""Check K4: the parameter columns of the paper, in millions as printed."""

from __future__ import annotations

import numpy as np
import pytest

from components.compression.blocks import Blocks
from components.compression.footprint import PUBLISHED, block_tables, convolutions, gru, table, tree
from components.compression.sharing import Sharing
from components.model import Catalog
from components.students import STUDENTS

ML = Blocks((7000, 15_000, 54_000), (512, 128, 32))


def millions(parameters: int) -> int:
    return round(parameters / 1e6)


def low_rank(num_items: int, dim: int = 512) -> int:
    return 2 * block_tables(Blocks((num_items,), (dim // 4,)), dim)


@pytest.mark.parametrize(
    ("num_items", "full", "with_bias", "single_block"),
    [(66_000, 67.58, 67.65, 17.03), (54_000, 55.30, 55.35, 13.96), (514_000, 526.3, 526.85, 131.7)],
)
def test_full_and_low_rank_tables(num_items: int, full: float, with_bias: float, single_block: float) -> None:
    both = 2 * table(num_items, 512)
    assert both / 1e6 == pytest.approx(full, abs=0.05)
    assert (both + num_items) / 1e6 == pytest.approx(with_bias, abs=0.05)
    assert low_rank(num_items) / 1e6 == pytest.approx(single_block, abs=0.05)


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("nextitnet-weishi", 74),
        ("nextitnet-ml20", 62),
        ("nextitnet-tiktok", 539),
        ("gru4rec-weishi", 69),
        ("gru4rec-ml100", 57),
    ],
)
def test_totals_of_the_uncompressed(name: str, total: int) -> None:
    assert millions(PUBLISHED[name].parameters()["total"]) == total


def test_ml100_was_printed_without_biases() -> None:
    model = PUBLISHED["nextitnet-ml100"]
    assert model.parameters(biases=False)["total"] / 1e6 == pytest.approx(80.46, abs=0.005)
    assert model.parameters()["total"] / 1e6 == pytest.approx(80.56, abs=0.005)


@pytest.mark.parametrize(
    ("sharing", "expected"),
    [("none", (6, 13, 25)), ("cl", (1, 1, 1)), ("cb", (2, 2, 2)), ("al", (3, 6, 13)), ("ab", (3, 6, 13))],
)
def test_the_middle(sharing: Sharing, expected: tuple[int, ...]) -> None:
    found = [convolutions(blocks, 512, sharing, biases=False, norms=False) for blocks in (4, 8, 16)]
    assert tuple(map(millions, found)) == expected


def test_blocks_of_movielens() -> None:
    assert block_tables(ML, 512) == 5_937_920
    assert tree(ML, 512) - block_tables(ML, 512) == 2 * 512
    model = PUBLISHED["nextitnet-ml20"]
    totals = [
        model.parameters(blocks_in=blocks_in, blocks_out=blocks_out)["total"] - model.parameters()["network"]
        for blocks_in, blocks_out in ((True, False), (False, True), (True, True))
    ]
    assert [millions(total) for total in totals] == [34, 34, 12]


@pytest.mark.parametrize(
    ("name", "sharing", "printed"),
    [
        ("nextitnet-ml20", "cl", 13),
        ("nextitnet-ml20", "al", 15),
        ("nextitnet-ml20", "ab", 15),
        ("nextitnet-ml100", "cl", 13),
        ("nextitnet-ml100", "cb", 13),
        ("nextitnet-weishi", "cl", 9),
        ("nextitnet-weishi", "cb", 9),
        ("nextitnet-weishi", "al", 11),
        ("nextitnet-tiktok", "cl", 66),
        ("nextitnet-tiktok", "cb", 67),
        ("nextitnet-tiktok", "al", 72),
    ],
)
def test_totals_of_the_compressed(name: str, sharing: Sharing, printed: int) -> None:
    found = PUBLISHED[name].parameters(blocks_in=True, blocks_out=True, sharing=sharing)["total"]
    assert millions(found) == printed


def test_parts() -> None:
    assert gru(512, 512) == 1_574_400
    assert gru(512, 512, bias_vectors=2) == 1_575_936
    assert convolutions(1, 512, "al", norms=False) == 786_944
    assert convolutions(1, 512, "al", norms=False, biases=False) == 786_432
    assert convolutions(8, 256, "ab", biases=False, norms=False) - 2 * 3 * 256**2 == 6 * 3 * 256**2  # ColdRec, Ab - Cb


@pytest.mark.parametrize("sharing", ["none", "cl", "cb", "al", "ab"])
def test_the_module_has_as_many(sharing: Sharing) -> None:
    catalog = Catalog(500, 3, np.ones(501, np.int64))
    compression = {"sharing": sharing, "boundaries": [40, 150]}
    arguments = {"dim": 32, "dilations": [1, 2, 4], "num_repeats": 1, "compression": compression}
    parts = STUDENTS["nextitnet"].make(catalog, arguments).parameter_parts()
    blocks = Blocks((40, 150, 500), (32, 8, 2))
    assert parts["embedding"] == block_tables(blocks, 32)
    assert parts["head"] == tree(blocks, 32)
    assert parts["network"] == convolutions(3, 32, sharing) + 32 * 33  # our output layer
