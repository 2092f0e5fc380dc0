"""Where embeddings of different sizes lie: all six of everybody side by side, or exactly those that were chosen."""

from __future__ import annotations

from typing import Final, Protocol

import torch
from torch import Tensor, nn

from components.embedding_size.growing import reserve
from components.embedding_size.row_adam import Rows
from components.embedding_size.side import below
from components.embedding_size.sizes import ALL_WIDTH, LARGEST, NUM_SIZES, SIZES, STARTS, WIDTH

OVERHEAD: Final = 5  # bytes per entity of the exact store beside its numbers: its size (1) and its row (4)


class EmbeddingStore(Protocol):
    """Embeddings of users, or of items.

    Attributes:
        count: N, entities.
    """

    count: int

    @property
    def sizes(self) -> Tensor:
        """(N,) index of everybody's size."""
        ...

    def size_of(self, entities: Tensor) -> Tensor:
        """(n,) int64, index of the size of each."""
        ...

    def ensure(self, count: int) -> None:
        """Let entities 0 … count - 1 exist; new ones begin at random with the smallest size."""

    def branches(self, unique: Tensor, step: int, *, learn: bool) -> list[Tensor]:
        """Numbers of distinct entities by size, each (n_k, d_k): the rows that `places` names.

        With `learn` they stand at `step` afterwards, and are leaves whose gradients `update` reads.
        """

    def places(self, unique: Tensor) -> list[Tensor]:
        """For every size, which of `unique` have a row in `branches`."""

    def update(self, step: int) -> None:
        """Adam's step on what `branches` gave last for learning."""

    def enlarge(self, entities: Tensor, transforms: nn.ModuleList, step: int) -> None:
        """Give distinct entities the next size, beginning with what the transform makes of the old embedding."""


class AllSizes:
    """Every size of everybody: needed where a branch's statistics are taken over all rows (``bn_mode: branches``).

    Args:
        learning_rate: of the rows.
        generator: of the new rows.
        drift: see `Rows`.
    """

    def __init__(self, learning_rate: float, generator: torch.Generator, *, drift: bool = True) -> None:
        self.rows = Rows(ALL_WIDTH, learning_rate, drift=drift)
        self.generator = generator
        self.count = 0
        self._sizes = torch.zeros(0, dtype=torch.int8)
        self._unique, self._leaf = torch.zeros(0, dtype=torch.int64), torch.zeros(0)

    @property
    def sizes(self) -> Tensor:
        """(N,) index of everybody's size."""
        return self._sizes[: self.count]

    def size_of(self, entities: Tensor) -> Tensor:
        """See `EmbeddingStore.size_of`."""
        return self._sizes[entities].long()

    def ensure(self, count: int) -> None:
        """See `EmbeddingStore.ensure`."""
        new = count - self.count
        if new > 0:
            self.rows.take(torch.randn(new, ALL_WIDTH, generator=self.generator))
            self._sizes = reserve(self._sizes, count)
            self.count = count

    def branches(self, unique: Tensor, step: int, *, learn: bool) -> list[Tensor]:
        """See `EmbeddingStore.branches`; every one of `unique` has a row in every size."""
        if not learn:
            return by_size(self.rows.peek(unique, step))
        self._unique, self._leaf = unique, self.rows.read(unique, step).requires_grad_()
        return by_size(self._leaf)

    def places(self, unique: Tensor) -> list[Tensor]:
        """See `EmbeddingStore.places`."""
        return [torch.arange(len(unique))] * NUM_SIZES

    def update(self, step: int) -> None:
        """See `EmbeddingStore.update`."""
        assert self._leaf.grad is not None
        self.rows.update(self._unique, self._leaf.grad, step)

    @torch.no_grad()
    def enlarge(self, entities: Tensor, transforms: nn.ModuleList, step: int) -> None:
        """See `EmbeddingStore.enlarge`; the old size's numbers stay where they are, and no longer count."""
        held = self.rows.read(entities, step)
        for index in range(LARGEST):
            chosen = self._sizes[entities] == index
            if chosen.any():
                old = held[chosen, STARTS[index] : STARTS[index] + SIZES[index]]
                self._replace(entities[chosen], index + 1, transforms[index](old))
        self._sizes[entities] += 1

    def _replace(self, entities: Tensor, index: int, values: Tensor) -> None:
        part = slice(STARTS[index], STARTS[index] + SIZES[index])
        self.rows.values[entities, part] = values
        self.rows.first[entities, part] = 0
        self.rows.second[entities, part] = 0

    @property
    def held_bytes(self) -> int:
        """What the embeddings take, spare rows included."""
        return self.rows.held_bytes

    @property
    def state_bytes(self) -> int:
        """What learning takes beside them."""
        return self.rows.state_bytes

    def tensors(self) -> dict[str, Tensor]:
        """All that `restore` needs."""
        return {"sizes": self.sizes.clone(), **{f"rows.{name}": one for name, one in self.rows.tensors().items()}}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Stand as when `tensors` were taken."""
        self._sizes = tensors["sizes"].clone()
        self.count = len(self._sizes)
        self.rows.restore(below(tensors, "rows."))


class ExactStore:
    """Everybody's one embedding: a table per size, so that what is held is the sum of the sizes.

    Freed rows are given out again; when more than an eighth of a table is free, it is closed up. Beside the numbers an
    entity takes `OVERHEAD` bytes; learning takes two moments per number and a step per row more.

    Args: as `AllSizes`.
    """

    def __init__(self, learning_rate: float, generator: torch.Generator, *, drift: bool = True) -> None:
        self.tables = [Rows(size, learning_rate, drift=drift) for size in SIZES]
        self.owners = [torch.zeros(0, dtype=torch.int32) for _ in SIZES]  # who has each row
        self.generator = generator
        self.count = 0
        self._sizes = torch.zeros(0, dtype=torch.int8)
        self._place = torch.zeros(0, dtype=torch.int32)
        self._learned: list[tuple[Tensor, Tensor]] = []  # (rows, leaf) by size

    @property
    def sizes(self) -> Tensor:
        """(N,) index of everybody's size."""
        return self._sizes[: self.count]

    def size_of(self, entities: Tensor) -> Tensor:
        """See `EmbeddingStore.size_of`."""
        return self._sizes[entities].long()

    def ensure(self, count: int) -> None:
        """See `EmbeddingStore.ensure`."""
        new = count - self.count
        if new > 0:
            entities = torch.arange(self.count, count)
            self._sizes, self._place = reserve(self._sizes, count), reserve(self._place, count)
            self.count = count
            self._settle(entities, 0, torch.randn(new, SIZES[0], generator=self.generator))

    def branches(self, unique: Tensor, step: int, *, learn: bool) -> list[Tensor]:
        """See `EmbeddingStore.branches`; every one of `unique` has a row in its own size alone."""
        rows = [self._place[unique[place]].long() for place in self.places(unique)]
        if not learn:
            return [table.peek(one, step) for table, one in zip(self.tables, rows, strict=True)]
        leaves = [table.read(one, step).requires_grad_() for table, one in zip(self.tables, rows, strict=True)]
        self._learned = list(zip(rows, leaves, strict=True))
        return leaves

    def places(self, unique: Tensor) -> list[Tensor]:
        """See `EmbeddingStore.places`."""
        sizes = self._sizes[unique]
        return [torch.nonzero(sizes == index).flatten() for index in range(NUM_SIZES)]

    def update(self, step: int) -> None:
        """See `EmbeddingStore.update`."""
        for table, (rows, leaf) in zip(self.tables, self._learned, strict=True):
            if len(rows) and leaf.grad is not None:
                table.update(rows, leaf.grad, step)
        self._learned = []

    @torch.no_grad()
    def enlarge(self, entities: Tensor, transforms: nn.ModuleList, step: int) -> None:
        """See `EmbeddingStore.enlarge`; the old rows are free for others."""
        chosen = [entities[place] for place in self.places(entities)]
        if len(chosen[LARGEST]):
            raise ValueError(f"{len(chosen[LARGEST])} entities have the largest size already")
        for index in range(LARGEST):
            if len(chosen[index]):
                rows = self._place[chosen[index]].long()
                values = transforms[index](self.tables[index].read(rows, step))
                self.tables[index].release(rows)
                self._settle(chosen[index], index + 1, values)
        for index, table in enumerate(self.tables):
            if table.wasteful:
                self._close_up(index)

    def _settle(self, entities: Tensor, index: int, values: Tensor) -> None:
        rows = self.tables[index].take(values)
        self._sizes[entities], self._place[entities] = index, rows.int()
        self.owners[index] = reserve(self.owners[index], self.tables[index].used)
        self.owners[index][rows] = entities.int()

    def _close_up(self, index: int) -> None:
        moved, gaps = self.tables[index].compact()
        owners = self.owners[index][moved]
        self._place[owners.long()] = gaps.int()
        self.owners[index][gaps] = owners
        self.owners[index] = self.owners[index][: self.tables[index].used].clone()

    def compact(self) -> None:
        """Give back all spare memory."""
        for index in range(NUM_SIZES):
            self._close_up(index)

    @property
    def used_bytes(self) -> int:
        """What the rows that are held take: four times the total dimension (Table 2)."""
        return sum(len(table) * table.width * 4 for table in self.tables)

    @property
    def held_bytes(self) -> int:
        """What the tables take, free and spare rows included."""
        return sum(table.held_bytes for table in self.tables)

    @property
    def state_bytes(self) -> int:
        """What learning takes beside them, and who has which row."""
        return sum(table.state_bytes for table in self.tables) + sum(4 * len(owners) for owners in self.owners)

    def tensors(self) -> dict[str, Tensor]:
        """All that `restore` needs."""
        found = {"sizes": self.sizes.clone(), "place": self._place[: self.count].clone()}
        for index, (table, owners) in enumerate(zip(self.tables, self.owners, strict=True)):
            found |= {f"{index}.{name}": one for name, one in table.tensors().items()}
            found[f"{index}.owners"] = owners[: table.used].clone()
        return found

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Stand as when `tensors` were taken."""
        self._sizes, self._place = tensors["sizes"].clone(), tensors["place"].clone()
        self.count = len(self._sizes)
        for index, table in enumerate(self.tables):
            own = below(tensors, f"{index}.")
            self.owners[index] = own.pop("owners").clone()
            table.restore(own)


class OneSize:
    """FIXED: one table of the full width.

    Args: as `AllSizes`.
    """

    def __init__(
        self, learning_rate: float, generator: torch.Generator, *, width: int = WIDTH, drift: bool = True
    ) -> None:
        self.rows = Rows(width, learning_rate, drift=drift)
        self.generator = generator
        self._unique, self._leaf = torch.zeros(0, dtype=torch.int64), torch.zeros(0)

    def ensure(self, count: int) -> None:
        """Let entities 0 … count - 1 exist."""
        new = count - self.rows.used
        if new > 0:
            self.rows.take(torch.randn(new, self.rows.width, generator=self.generator))

    def read(self, unique: Tensor, step: int, *, learn: bool) -> Tensor:
        """(U, d) embeddings; with `learn` a leaf whose gradient `update` reads."""
        if not learn:
            return self.rows.peek(unique, step)
        self._unique, self._leaf = unique, self.rows.read(unique, step).requires_grad_()
        return self._leaf

    def update(self, step: int) -> None:
        """Adam's step on what `read` gave last for learning."""
        assert self._leaf.grad is not None
        self.rows.update(self._unique, self._leaf.grad, step)


def by_size(rows: Tensor) -> list[Tensor]:
    """(U, 222) numbers of all sizes side by side -> (U, d_k) of each."""
    return list(torch.split(rows, list(SIZES), 1))


def histogram(sizes: Tensor) -> list[int]:
    """Entities of every size."""
    return torch.bincount(sizes.long(), minlength=NUM_SIZES).tolist()
