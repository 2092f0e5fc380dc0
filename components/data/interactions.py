"""Who interacted with what in training, as a sparse matrix: for models that read sets and graphs, not sequences."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array, csr_array

from components.data.flat_sequences import Sequences


def training_matrix(sequences: Sequences | None, num_users: int, num_items: int) -> csr_array:
    """(U + 1, N + 1) float32, 1 where a user has an item in the training part, however often.

    Row 0 (unknown user) and column 0 (PAD) are empty.

    Args:
        sequences: the sequences; None gives an empty matrix.
        num_users: U; user numbers are 1..U.
        num_items: N.

    Raises:
        ValueError: a user number is not 1..U.
    """
    shape = (num_users + 1, num_items + 1)
    if sequences is None:
        return csr_array(shape, dtype=np.float32)
    numbers = sequences.users
    if len(numbers) and not (numbers.min() >= 1 and numbers.max() <= num_users):
        raise ValueError(f"sequences.users must be 1..{num_users}, got {numbers.min()}..{numbers.max()}")
    starts = np.repeat(sequences.offsets[:-1], sequences.lengths)
    training = np.arange(len(sequences.items)) - starts < np.repeat(sequences.train_end, sequences.lengths)
    pairs = np.repeat(numbers, sequences.lengths)[training], sequences.items[training]
    matrix = coo_array((np.ones(len(pairs[0]), np.float32), pairs), shape=shape).tocsr()
    matrix.sort_indices()
    matrix.data[:] = 1.0  # several interactions with one item are one entry
    return matrix
