"""What goes on in the background and may fail for a while: it is said once, and once that it is over."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from serve.logs import spoken


class Trouble:
    """Keeps a loop alive whatever its body raises, and its log readable.

    A thread that dies of an error it did not expect leaves an endpoint that answers and follows nobody: no rollback
    would reach it any more. So everything is caught here, and a failure that repeats four times a second is one line.

    Args:
        logger: where it is said.
        about: what does not work then.
    """

    def __init__(self, logger: logging.Logger, about: str) -> None:
        self._logger, self._about = logger, about
        self._last = ""

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Run the block; an error of it ends the block alone."""
        try:
            yield
        except Exception as error:
            told = spoken(error)
            if told != self._last:
                self._logger.error("%s: %s", self._about, told, exc_info=error)
            self._last = told
        else:
            if self._last:
                self._logger.warning("%s: it works again", self._about)
            self._last = ""
