"""What `distilrec stream` does."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from components.errors import UserError
from pipelines.driver import execute_run, plan_run
from pipelines.interrupt import interruptible
from pipelines.load_config import load_config
from pipelines.output import decision_table, messages, results
from pipelines.stream.blocks import BLOCKS_FILE, write_blocks
from pipelines.stream.results import print_tables, served_folder, write_stream


def stream(
    file: Path,
    overrides: list[str],
    *,
    dry_run: bool = False,
    forced: str = "",
    as_json: bool = False,
    to_blocks: bool = False,
    dim: int = 64,
) -> dict[str, Any]:
    """Prepare the stream, let every method run over it, and show what came of it; returns what ``--json`` prints.

    Args:
        file: the configuration.
        overrides: of its keys.
        dry_run: only say what would run.
        forced: a stage that runs in any case.
        as_json: keep stdout for the document.
        to_blocks: also write the sizes of the served method as a partition for CpRec.
        dim: width of the student that the partition is for.

    Raises:
        DistilrecError: the input is wrong, or a stream failed.
    """
    config = load_config(file, overrides)
    if not config.streams:
        raise UserError(f"{file}: is no stream; set `prepare: {{task: ratings}}` (configs/stream.yaml shows it)")
    if to_blocks and config.stream_section.serve != "esapn":
        raise UserError(f"{file}: stream.serve is {config.stream_section.serve}, and only esapn chooses sizes")
    if dry_run:
        decisions = plan_run(config, "stream", forced)
        if not as_json:
            results().print(decision_table(decisions))
        return {"run": str(config.folder), "nodes": [vars(one) for one in decisions]}
    outcome = execute_run(config, "stream", forced)
    served = served_folder(config, config.stream_section.serve, config.seeds[0])
    with interruptible():
        document, written = write_stream(config)
        blocks = write_blocks(served, config.folder / BLOCKS_FILE, dim) if to_blocks else None
    console = messages() if as_json else results()
    print_tables(document, console)
    lines = [f"pictures: {config.folder}/stream-*.svg", f"written:  {config.folder / 'stream.json'}"]
    if blocks:
        lines += [f"blocks:   {config.folder / BLOCKS_FILE}", blocks.text]
    lines.append(f"endpoint: distilrec serve {shlex.quote(str(served))}")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return {
        "run": str(config.folder),
        "ran": outcome.ran,
        "served": str(served),
        "document": document,
        "blocks": blocks.compression if blocks else None,
        "files": [str(path) for path in written],
    }
