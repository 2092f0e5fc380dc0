"""What leaks from the future into training under the chosen split, counted per partition and judged once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.data.partition import RANGE, codes_of, count_marked, flat, mark_first, offsets_of
from components.data.tally import Tally, dense, scalars, sparse
from components.data.timestamps import DAY
from components.errors import DataError
from components.schema import TIMESTAMPS, TRAIN_END, VALID_END

IntArray = NDArray[np.int64]


def summarize(partition: pa.Table, num_items: int, num_ranges: int) -> pa.Table:
    """Everything that the driver needs of a split partition, as one tally.

    Kinds: ``users`` by range; ``train``, ``valid_targets``, ``test_targets`` by item code; ``train_days`` and
    ``test_days`` by day since the epoch; the scalars ``interactions``, ``train_interactions``, ``repeated_targets``.
    """
    codes, offsets = codes_of(partition), offsets_of(partition)
    lengths = np.diff(offsets)
    train_end = partition[TRAIN_END].to_numpy().astype(np.int64)
    valid_end = partition[VALID_END].to_numpy().astype(np.int64)
    training = mark_first(train_end, lengths)
    valid = (offsets[:-1] + train_end)[(train_end >= 1) & (train_end < valid_end)]
    tested = (valid_end >= 1) & (valid_end < lengths)
    test = (offsets[:-1] + valid_end)[tested]
    tables = [
        dense("users", np.bincount(partition[RANGE].to_numpy(), minlength=num_ranges)),
        dense("train", np.bincount(codes[training], minlength=num_items)),
        dense("valid_targets", np.bincount(codes[valid], minlength=num_items)),
        dense("test_targets", np.bincount(codes[test], minlength=num_items)),
        scalars(
            {
                "interactions": len(codes),
                "train_interactions": int(training.sum()),
                "repeated_targets": _repeated(codes, offsets, np.where(tested, valid_end, 0)),
            }
        ),
    ]
    if TIMESTAMPS in partition.column_names:
        days = flat(partition, TIMESTAMPS).to_numpy(zero_copy_only=False) // DAY
        tables += [_days("train_days", days[training]), _days("test_days", days[test])]
    return pa.concat_tables(tables)


def _repeated(codes: NDArray[np.int32], offsets: IntArray, cut: IntArray) -> int:
    """Users whose test target occurs in their own history; `cut` is the target's place, 0 for none."""
    lengths = np.diff(offsets)
    targets = codes[offsets[:-1] + cut]
    same = (codes == np.repeat(targets, lengths)) & mark_first(cut, lengths)
    return int((count_marked(same, offsets) > 0).sum())


def _days(kind: str, days: IntArray) -> pa.Table:
    return sparse(kind, *np.unique(days, return_counts=True))


def audit(tally: Tally, alive: NDArray[np.bool_], split: str) -> dict[str, Any]:
    """Judge a split: a list of findings, each a ``leak`` or a ``note``, and the counts behind them.

    Args:
        tally: the sum of `summarize` over all partitions.
        alive: (N,) by item code: the catalogue.
        split: its name, for the report.
    """
    train, targets = tally.dense("train", len(alive))[alive], tally.dense("test_targets", len(alive))[alive]
    cases, training = int(targets.sum()), tally.scalar("train_interactions")
    unseen, repeated = int(targets[train == 0].sum()), tally.scalar("repeated_targets")
    findings = [
        *_future(tally, training),
        _finding("note", "unseen_test_targets", unseen, cases, "test targets never occur in training"),
        _finding("note", "repeated_test_targets", repeated, cases, "test targets occur in their user's own history"),
    ]
    return {
        "split": split,
        "training_interactions": training,
        "valid_cases": tally.scalar("valid_targets"),
        "test_cases": cases,
        "items_without_training": int((train == 0).sum()),
        "leaks": any(finding["severity"] == "leak" for finding in findings),
        "findings": [finding for finding in findings if finding["count"]],
    }


def _future(tally: Tally, training: int) -> list[dict[str, Any]]:
    """How much of training lies after test interactions of others, by day."""
    days, counts = tally.pairs("train_days")
    test_days, cases = tally.pairs("test_days")
    if not len(days):
        text = "the log has no timestamps: whether training sees the future cannot be measured"
        return [{"severity": "note", "name": "no_timestamps", "count": 1, "share": 1.0, "message": text}]
    if not len(test_days):
        return []
    later = counts.sum() - np.concatenate([[0], np.cumsum(counts)])[np.searchsorted(days, test_days, side="right")]
    after_first = int(later[0])
    mean_share = float((later * cases).sum() / max(cases.sum() * training, 1))
    text = (
        "training interactions lie on days after the first test interaction; on average a test target has "
        f"{mean_share:.1%} of the training data in its future: split: global_time has none"
    )
    found = _finding("leak" if after_first else "note", "training_after_test", after_first, training, text)
    return [{**found, "mean_future_share": round(mean_share, 6)}]


def _finding(severity: str, name: str, count: int, total: int, message: str) -> dict[str, Any]:
    share = count / total if total else 0.0
    return {"severity": severity, "name": name, "count": count, "share": round(share, 6), "message": message}


def check_audit(report: dict[str, Any], mode: str) -> None:
    """Refuse a leaking split where the user asked for that.

    Raises:
        DataError: `mode` is ``block`` and the report holds a leak.
    """
    if mode == "block" and report["leaks"]:
        leaks = [item for item in report["findings"] if item["severity"] == "leak"]
        said = "; ".join(f"{item['name']}: {item['count']:,} ({item['share']:.1%}) {item['message']}" for item in leaks)
        raise DataError(f"prepare.audit: block: the split {report['split']} leaks: {said}")
