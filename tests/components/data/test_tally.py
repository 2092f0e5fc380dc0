import numpy as np

from components.data.tally import Tally, dense, scalars, sparse


def test_tables_are_added_up() -> None:
    tally = Tally(
        [dense("a", np.array([0, 2, 1])), dense("a", np.array([5, 0, 1])), scalars({"b": 3}), scalars({"b": 4})]
    )
    assert tally.dense("a", 4).tolist() == [5, 2, 2, 0]
    assert tally.scalar("a") == 9
    assert tally.scalar("b") == 7


def test_pairs_are_ascending_and_unique() -> None:
    tally = Tally([sparse("day", np.array([7, -3]), np.array([1, 2])), sparse("day", np.array([7]), np.array([5]))])
    keys, sums = tally.pairs("day")
    assert (keys.tolist(), sums.tolist()) == ([-3, 7], [2, 6])


def test_an_unknown_kind_counts_nothing() -> None:
    assert Tally([]).scalar("a") == 0
    assert Tally([scalars({})]).dense("a", 2).tolist() == [0, 0]
    assert Tally([]).pairs("a")[0].tolist() == []
