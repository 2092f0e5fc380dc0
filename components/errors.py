"""One exception tree; every error that a user can cause or meet is in it.

DistilrecError                  anything that distilrec raises on purpose
├── UserError                   the user's input is wrong               exit code 2
│   ├── ConfigError             a key or a value of the configuration
│   ├── DataError               a log, an item file, a column
│   ├── UnknownNameError        a name that no registry holds
│   └── ResourceError           the cluster can never give what was asked for
├── ArtifactError               a folder that is corrupt, truncated or of an unknown version
├── StorageError                the disk is full or cannot be written
└── StageError                  a stage failed for another reason       exit code 1
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DistilrecError(Exception):
    """Anything that distilrec raises on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class UserError(DistilrecError):
    """The user's input is wrong; the message says what was expected and what to do."""

    exit_code = 2


class ConfigError(UserError):
    """A key or value of the configuration is wrong."""


class DataError(UserError):
    """An input file, a column or a row is unusable."""


class ResourceError(UserError):
    """The cluster can never satisfy the request."""


class ArtifactError(DistilrecError):
    """An artifact is corrupt, truncated or of an unknown version."""


class StorageError(DistilrecError):
    """Nothing can be written: the disk is full, or access is denied."""


class StageError(DistilrecError):
    """A stage of a run failed; the cause is chained."""


class UnknownNameError(UserError):
    """A name that a registry does not hold.

    Args:
        kind: what the registry holds, such as ``"student"``.
        name: the name that was asked for.
        known: the names that exist.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        super().__init__(f"unknown {kind} {name!r}; known: {', '.join(names)}{nearest(name, names)}")
        self._arguments = (kind, name, names)

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, str, list[str]]]:
        return type(self), self._arguments  # by default pickle would pass the message as the only argument


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"``, or an empty string where no name is close.

    >>> nearest("sasrek", ["sasrec", "mostpop"])
    "; did you mean 'sasrec'?"
    """
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
