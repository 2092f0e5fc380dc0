"""A teacher's states at every training instance, in the order in which sequences store them, and at held-out cases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.data.batching import Batch, IntArray, PrefixBatches, TrainingBatches, evaluation_batches
from components.data.flat_sequences import EvaluationCases, Sequences
from components.model import Ranker
from components.schema import PAD

TOKENS = 8192  # items that are encoded at once
SINGLES = 2048  # histories that are given to a model at once that reads each alone; it cuts them further


@torch.inference_mode()
def training_states(model: Ranker, sequences: Sequences, device: torch.device | str = "cpu") -> NDArray[np.float16]:
    """(instances, d) states of `model` for every training instance, dropout off, fp16.

    Instance ``t`` of a user has the history ``items[:t + 1]``, of which a model sees the last L. A model that is not
    causal reads each history as a sequence of its own, equal ones once. Of a causal one, one pass over a window gives
    the states of all its positions. Users with more than L inputs take several windows that overlap by half, and a
    state comes from the window in which its history is longer: it has seen at least the last L / 2 items.

    Args:
        model: a teacher; put into evaluation mode.
        sequences: any part of the users.
        device: where it computes; the model must be there.
    """
    model.eval()
    states = np.empty((sequences.num_instances, 0), np.float16)
    length = model.max_length
    first = None if model.causal else equal_histories(sequences, length)
    batches = _batches(sequences, length) if first is None else _single_batches(sequences, length, np.unique(first))
    for batch, fresh in batches:
        found = model.states(batch.to(device))[fresh.to(device)].float().cpu().numpy()
        if not states.shape[1]:
            states = np.empty((sequences.num_instances, found.shape[1]), np.float16)
        states[batch.instances[fresh].numpy()] = found
    return states if first is None else states[first]


@torch.inference_mode()
def case_states(model: Ranker, cases: EvaluationCases, device: torch.device | str = "cpu") -> NDArray[np.float16]:
    """(C, d) states of `model` at the end of every case's history, dropout off, fp16; (0, 0) where there is no case.

    Args:
        model: a teacher; put into evaluation mode.
        cases: histories, of which it sees the last L.
        device: where it computes; the model must be there.
    """
    model.eval()
    states = np.empty((len(cases), 0), np.float16)
    for numbers, batch in evaluation_batches(cases, model.max_length, max(1, TOKENS // model.max_length)):
        found = model.states(batch.to(device)).float().cpu().numpy()
        if not states.shape[1]:
            states = np.empty((len(cases), found.shape[1]), np.float16)
        states[numbers] = found
    return states


def _batches(sequences: Sequences, length: int) -> Iterator[tuple[Batch, Tensor]]:
    """Batches that together hold every instance, and which of a batch's positions to keep."""
    windows, skip = overlapping_windows(np.maximum(sequences.train_end.astype(np.int64) - 1, 0), length)
    order = np.argsort(windows[:, 2], kind="stable")
    batches = TrainingBatches(sequences, length, batch_size=1)
    begin = 0
    while begin < len(order):
        widest = int(windows[order[begin], 2])
        size = max(1, TOKENS // max(widest, 1))
        chosen = order[begin : begin + size]
        batch = batches.batch(windows[chosen])
        column = batch.positions % batch.items.shape[1]
        yield batch, column >= torch.from_numpy(skip[chosen])[batch.rows]
        begin += size


def _single_batches(sequences: Sequences, length: int, instances: IntArray) -> Iterator[tuple[Batch, Tensor]]:
    """Batches of one history per row that together hold all `instances`, shortest first; all positions are kept."""
    windows = _single_windows(sequences, length)[instances]
    order = np.argsort(windows[:, 2], kind="stable")
    batches = PrefixBatches(sequences, length, batch_size=1)
    for begin in range(0, len(order), SINGLES):
        chosen = order[begin : begin + SINGLES]
        batch = replace(batches.batch(windows[chosen]), instances=torch.from_numpy(instances[chosen]))
        yield batch, torch.ones(len(chosen), dtype=torch.bool)


def equal_histories(sequences: Sequences, length: int) -> IntArray:
    """(instances,) for each instance the first one whose last `length` items are the same."""
    rows, first, size = _single_windows(sequences, length).T
    steps = np.arange(length)
    places = (sequences.offsets[rows] + first)[:, None] + steps  # (instances, L)
    known = steps < size[:, None]
    histories = np.where(known, sequences.items[np.where(known, places, 0)], PAD)
    _, origin, number = np.unique(histories, axis=0, return_index=True, return_inverse=True)
    return origin[number.reshape(-1)]


def _single_windows(sequences: Sequences, length: int) -> IntArray:
    """(instances, 3) user row, first item and number of items of each instance's history."""
    offsets = sequences.instance_offsets
    instances = np.arange(sequences.num_instances)
    rows = np.searchsorted(offsets, instances, side="right") - 1
    seen = instances - offsets[rows] + 1  # items of each history
    sizes = np.minimum(seen, length)
    return np.stack([rows, seen - sizes, sizes], axis=1)


def overlapping_windows(inputs: IntArray, length: int) -> tuple[IntArray, IntArray]:
    """Cut users with `inputs` (U,) instances into windows of at most `length` that overlap by half.

    Returns:
        (W, 3) windows (user row, first input, number of inputs) and (W,) how many first positions of each another
        window covers with a longer history.

    >>> [part.tolist() for part in overlapping_windows(np.array([3, 10]), 4)]
    [[[0, 0, 3], [1, 0, 4], [1, 2, 4], [1, 4, 4], [1, 6, 4]], [0, 0, 2, 2, 2]]
    """
    step = max(length // 2, 1)
    count = np.where(inputs > 0, 1 + np.maximum(-(-(inputs - length) // step), 0), 0)
    owner = np.repeat(np.arange(len(inputs)), count)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    first = number * step
    size = np.minimum(inputs[owner] - first, length)
    skip = np.where(number > 0, length - step, 0)
    return np.stack([owner, first, size], axis=1), skip
