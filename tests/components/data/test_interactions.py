from dataclasses import replace

import numpy as np
import pytest

from components.data.interactions import training_matrix
from tests.worlds import sequences

LISTS = [[1, 2, 1, 4, 3], [2, 2, 5, 1], [3, 4]]  # the last two of each are held out, but for the short third


def test_every_pair_of_the_training_part_is_one_entry() -> None:
    found = training_matrix(sequences(LISTS), 4, 5)
    expected = np.zeros((5, 6))
    for user, item in [(1, 1), (1, 2), (2, 2), (3, 3), (3, 4)]:
        expected[user, item] = 1
    assert (found.toarray() == expected).all()
    assert found.nnz == 5, "a repeated interaction is stored once"
    assert found.has_sorted_indices


def test_held_out_items_leave_no_trace() -> None:
    data = sequences(LISTS)
    other = data.items.copy()
    other[[3, 4, 7, 8]] = 5
    first, second = (training_matrix(replace(data, items=items), 3, 5) for items in (data.items, other))
    assert (first != second).nnz == 0


def test_without_sequences_nobody_has_anything() -> None:
    assert training_matrix(None, 3, 5).toarray().tolist() == np.zeros((4, 6)).tolist()


def test_a_user_number_beyond_the_catalog_is_named() -> None:
    with pytest.raises(ValueError, match=r"sequences\.users must be 1\.\.2, got 1\.\.3"):
        training_matrix(sequences(LISTS), 2, 5)
