from __future__ import annotations

import numpy as np

from components.data.overlap import NO_TEXT, shared, text_hashes
from tests.worlds import sequences


def test_case_and_white_space_do_not_count_but_words_do() -> None:
    hashes = text_hashes(["A Lamp", " a\n lamp", "a lamps", "", "  ", "Straße 🚀"])
    assert hashes[0] == hashes[1]
    assert len({*hashes[[0, 2, 5]].tolist()}) == 3
    assert hashes[3] == hashes[4] == NO_TEXT


def test_items_without_text_are_shared_with_nobody() -> None:
    source, target = text_hashes(["x", "", "y"]), text_hashes(["", "y", "z"])
    assert shared(source, target).tolist() == [False, False, True]


def test_a_hash_is_the_same_in_every_process() -> None:
    assert text_hashes(["lamp"]).tolist() == [3097374708458783851]


def test_sequences_without_items_keep_their_parts() -> None:
    data = sequences([[1, 2, 3, 4, 5], [3, 3, 3], [6, 7, 8, 3], [1, 2]])
    left = data.without(np.array([3, 5]))
    assert [row.tolist() for row in np.split(left.items, left.offsets[1:-1])] == [[1, 2, 4], [], [6, 7, 8], [1, 2]]
    # train 1 2 3 | valid 4 | test 5 -> train 1 2 | valid 4 | nothing; 6 7 | 8 | 3 -> 6 7 | 8 |
    assert left.train_end.tolist() == [2, 0, 2, 2]
    assert left.valid_end.tolist() == [3, 0, 3, 2]
    assert left.users.tolist() == data.users.tolist()
    assert left.cases("valid").targets.tolist() == [4, 8]
    assert len(left.cases("test")) == 0


def test_timestamps_go_with_their_items() -> None:
    from dataclasses import replace

    data = replace(sequences([[1, 2, 3, 4]]), timestamps=np.array([10, 20, 30, 40]))
    assert data.without(np.array([2])).timestamps.tolist() == [10, 30, 40]
