"""The load generator in C: Debian's wrk."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from benchmarks.serving.load import Load, LoadResult

SCRIPT: Final = Path(__file__).with_suffix(".lua")
MARK: Final = "RESULT "


def run(load: Load) -> LoadResult:
    """Run wrk with one thread.

    Raises:
        RuntimeError: it failed; the message quotes it.
    """
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as bodies:
        bodies.write(b"\n".join(body.replace(b"\n", b" ") for body in load.bodies) + b"\n")
        bodies.flush()
        command = ["wrk", "-t1", f"-c{load.connections}", f"-d{max(1, round(load.seconds))}s", "--latency"]
        command += [f"--timeout={max(1, round(load.timeout_s))}s", "-s", str(SCRIPT), load.url, "--", bodies.name]
        done = subprocess.run(command + ([load.key] if load.key else []), capture_output=True, text=True, check=False)
    return parse(done.stdout, done.stderr)


def parse(output: str, problems: str = "") -> LoadResult:
    """What the script of `SCRIPT` printed."""
    from benchmarks.serving.load import ERROR, LoadResult

    line = next((line for line in output.splitlines() if line.startswith(MARK)), None)
    if line is None:
        raise RuntimeError(f"wrk gave no result: {(problems or output).strip()[-500:]}")
    found = json.loads(line.removeprefix(MARK))
    statuses = dict(found["statuses"])
    if found["errors"]:
        statuses[ERROR] = found["errors"]
    return LoadResult(found["seconds"], statuses, *found["latencies"])
