"""Rating logs as CSV text."""

from __future__ import annotations

import random
from pathlib import Path

HEADER = "user_id,item_id,rating,timestamp\n"


def rating_lines(rows: int, users: int = 20, items: int = 30, seed: int = 0) -> list[str]:
    """Lines whose order in the file is not that of time; tastes make ratings."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    lines = []
    for _ in range(rows):
        user, item = int(draw.random() ** 2 * users), int(draw.random() ** 2 * items)
        rating = min(5.0, max(0.5, round(2 * (3 + ((user * 7 + item * 3) % 5 - 2) + draw.gauss(0, 0.4))) / 2))
        lines.append(f"u{user},i{item},{rating},{draw.randrange(10**9, 10**9 + 10**6)}")
    return lines


def write_log(folder: Path, lines: list[str], name: str = "ratings.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(HEADER + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder
