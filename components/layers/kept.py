"""Values that are dear to make and depend on tensors alone, kept until a tensor changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, Self, TypeVar

from torch import Tensor, nn

T = TypeVar("T")


class Kept(nn.Module, Generic[T]):
    """One value that was made of some tensors; it has no tensors of its own.

    As a child of the module that makes the value it hears when training goes on, and forgets.
    """

    def __init__(self) -> None:
        super().__init__()
        self._found: tuple[object, T] | None = None

    def get(self, make: Callable[[], T], tensors: Iterable[Tensor], *conditions: object) -> T:
        """What `make` returned when `tensors` and `conditions` were the same; else what it returns now.

        A change in place, such as loading another state, counts; but a fused optimizer's step leaves no trace, so
        `forget` must be called where one may follow.
        """
        key = (conditions, tuple((tensor.data_ptr(), tensor._version) for tensor in tensors))
        if self._found is None or self._found[0] != key:
            self._found = (key, make())
        return self._found[1]

    def forget(self) -> None:
        """Make the value anew when it is asked for again."""
        self._found = None

    def train(self, mode: bool = True) -> Self:
        """Forget when training goes on."""
        if mode:
            self.forget()
        return super().train(mode)
