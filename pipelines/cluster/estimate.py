"""Time and memory of stages before they run: rough, from rates that were measured (docs/benchmarks.md) and sizes.

Time is good to a factor of two or three, and early stopping ends trainings sooner. Memory is a lower bound: what a
process must hold, whatever else it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from components.training.config import TrainingConfig

CPU_FLOPS: Final = 60e9  # of one core in training, forward and backward: 36,000 to 42,000 targets per second on ML-1M
GPU_FLOPS: Final = 10e12
ROWS_PER_SECOND: Final = 6e5  # preparation
TEXTS_PER_SECOND: Final = 25.0  # of one core, all-MiniLM-L6-v2 in fp32
GPU_TEXTS_PER_SECOND: Final = 2_000.0
RANKED_PER_SECOND: Final = 14_000 * 3_416.0  # (user, item) pairs of one core
START_SECONDS: Final = 6.0  # of a node: a process starts and imports PyTorch
PROCESS_BYTES: Final = 400 * 2**20
ROW_BYTES: Final = 235  # of a log on the fast path
RANGE_BYTES: Final = 700 * 2**20  # of a task on the Ray path
ADAM: Final = 4  # copies of a parameter: itself, its gradient, two moments
FP32, FP16, ID = 4, 2, 4
ITEMS_PER_ROW: Final = 1 / 20  # assumed before anything is prepared
USERS_PER_ROW: Final = 1 / 20


@dataclass(frozen=True)
class DataSize:
    """How much there is.

    Attributes:
        rows: interactions.
        users: with a sequence.
        items: in the catalog.
        exact: counted in the prepared set; else the rows are estimated and the rest assumed.
    """

    rows: int
    users: int
    items: int
    exact: bool

    @classmethod
    def of_rows(cls, rows: int) -> DataSize:
        """What a log of so many rows may hold."""
        return cls(rows, max(1, int(rows * USERS_PER_ROW)), max(1, int(rows * ITEMS_PER_ROW)), exact=False)


@dataclass(frozen=True)
class Cost:
    """Seconds on what the stage gets, bytes of its largest process; None where nothing is known."""

    seconds: float | None
    bytes: float | None


@dataclass(frozen=True)
class Power:
    """What works on one node of the graph: all its CPUs and GPUs together."""

    cpus: float
    gpus: float

    @property
    def flops(self) -> float:
        """Per second, in training."""
        return self.gpus * GPU_FLOPS or self.cpus * CPU_FLOPS


def preparation(size: DataSize, fast_path_rows: int) -> Cost:
    """Stage ``prepare``: in one process while the log is small."""
    held = size.rows * ROW_BYTES if size.rows <= fast_path_rows else RANGE_BYTES
    return Cost(START_SECONDS + size.rows / ROWS_PER_SECOND, PROCESS_BYTES + held)


def encoding(size: DataSize, power: Power) -> Cost:
    """Stage ``features``: the texts of all items, none of them known yet."""
    rate = power.gpus * GPU_TEXTS_PER_SECOND or power.cpus * TEXTS_PER_SECOND
    return Cost(START_SECONDS + size.items / rate, 2 * PROCESS_BYTES)


def training(
    size: DataSize, arguments: Mapping[str, Any], config: TrainingConfig, power: Power, states: int = 0
) -> Cost:
    """One training over all its epochs.

    Args:
        size: of the data.
        arguments: of the model; without a width nothing is known of it.
        config: how it is trained.
        power: what works on it.
        states: numbers per training position that teachers left.
    """
    dim = arguments.get("dim")
    if not isinstance(dim, int) or "backbone" in arguments:
        return Cost(None, None)
    network = network_parameters(arguments)
    per_target = 6.0 * (network + size.items * dim)
    seconds = START_SECONDS + config.epochs * size.rows * per_target / power.flops
    table = 0 if arguments.get("mode") == "inductive" else size.items * dim
    held = (table + network) * FP32 * ADAM + size.rows * (2 * ID + states * FP16)
    return Cost(seconds, PROCESS_BYTES + held)


def network_parameters(arguments: Mapping[str, Any]) -> int:
    """Of a transformer: 12 d^2 per layer. Other networks are about as large.

    >>> network_parameters({"dim": 64, "num_layers": 2})
    98304
    """
    dim, layers = int(arguments["dim"]), arguments.get("num_layers")
    return 12 * dim * dim * (layers if isinstance(layers, int) else 2)


def annotation(size: DataSize, widths: int, power: Power) -> Cost:
    """Stage ``annotate``: every teacher passes forward over every sequence once."""
    flops = 2.0 * 24 * widths * widths
    return Cost(START_SECONDS + size.rows * flops / power.flops, PROCESS_BYTES + size.rows * 2 * ID)


def ranking(size: DataSize, models: int, places: int) -> Cost:
    """Stage ``evaluate``: every model ranks all items for every user."""
    waves = -(-models // max(1, min(places, models)))
    seconds = waves * (START_SECONDS + size.users * size.items / RANKED_PER_SECOND)
    return Cost(seconds, PROCESS_BYTES + size.rows * 2 * ID)
