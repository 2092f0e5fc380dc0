"""The table of a plan."""

from __future__ import annotations

from rich.table import Table

from pipelines.cluster.plan import DRIVER, GIB, RunPlan
from pipelines.progress import duration


def plan_table(plan: RunPlan) -> Table:
    """For people."""
    table = Table(title=f"What {plan.run} asks for", title_justify="left")
    for name in ("stage", "role", "asks per process"):
        table.add_column(name, overflow="fold")
    for name in ("processes", "places", "time", "GiB at least"):
        table.add_column(name, justify="right")
    table.add_column("", overflow="fold")
    for ask in plan.asks:
        wanted = {"CPU": ask.cpus, "GPU": ask.gpus, **ask.custom}
        time = "?" if ask.seconds is None else ("" if ask.basis == "measured" else "~") + duration(ask.seconds)
        table.add_row(
            ask.work,
            ask.role,
            ", ".join(f"{amount:g} {name}" for name, amount in wanted.items() if amount) or "-",
            f"{ask.nodes} x {ask.workers}",
            str(ask.places) if ask.role != DRIVER else "-",
            time,
            "?" if ask.bytes is None else f"{ask.bytes / GIB:.1f}",
            "impossible" if ask.problem else "",
            style="red" if ask.problem else "",
        )
    return table
