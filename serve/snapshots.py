"""How the replicas of one machine answer ``GET /metrics`` together: each writes its own text where all can read it.

A scrape meets one replica by chance. Every series carries the replica's name, so putting the texts together is all that
there is to do, and sums over replicas are right. A replica that is gone stops writing, and its series end, as those of
any process that is gone do in Prometheus.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

EVERY_S: Final = 1.0
GONE_S: Final = 15.0  # a living replica writes at each of its health checks, which are seconds apart
SUFFIX: Final = ".prom"


class Snapshots:
    """The texts of all replicas.

    Args:
        folder: shared by the replicas; it exists, or is made.
        replica: name of this one.
        clock: the time of day, as files have it.
    """

    def __init__(self, folder: Path, replica: str, clock: Callable[[], float] = time.time) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._clock = folder, clock
        self._own = folder / f"{re.sub('[^A-Za-z0-9_-]', '_', replica)}{SUFFIX}"
        self._written = 0.0

    def due(self) -> bool:
        """Whether the last text is old enough for a new one."""
        return self._clock() - self._written >= EVERY_S

    def write(self, text: bytes) -> None:
        """Put this replica's text in place, whole."""
        self._written = self._clock()
        draft = self._own.with_suffix(".new")
        draft.write_bytes(text)
        os.replace(draft, self._own)

    def merged(self, own: bytes) -> bytes:
        """`own` and what the other living replicas wrote last, each metric's series together."""
        texts = [own]
        for file in sorted(self._folder.glob(f"*{SUFFIX}")):
            with contextlib.suppress(FileNotFoundError):  # another replica may have removed it just now
                if file == self._own:
                    continue
                if self._clock() - file.stat().st_mtime > GONE_S:
                    file.unlink()
                    continue
                texts.append(file.read_bytes())
        return merge(texts)


def merge(texts: list[bytes]) -> bytes:
    """Several texts of the exposition format as one: a metric's description once, then the series of all."""
    heads: dict[bytes, list[bytes]] = {}
    series: dict[bytes, list[bytes]] = {}
    for text in texts:
        name, seen = b"", set()
        for line in text.splitlines():
            if line.startswith(b"# HELP "):
                name = line.split(b" ", 3)[2]
                if name not in heads:
                    heads[name] = []
                    seen.add(name)
            if not line.startswith(b"#"):
                series.setdefault(name, []).append(line)
            elif name in seen:
                heads[name].append(line)
    lines = [line for name, head in heads.items() for line in (*head, *series.get(name, []))]
    return b"\n".join(lines) + b"\n"
