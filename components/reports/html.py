"""The report as one HTML file: pictures inline, nothing loaded from anywhere, every text escaped."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from components.evaluation.leaderboard import main_metric
from components.reports import plots, tables
from components.reports.headline import headline
from components.reports.search import front_picture
from components.reports.svg import Picture

TEMPLATE: Final = "report.html"
CREDENTIALS: Final = re.compile(r"(?<=://)[^/@\s\"]+@")  # user:password@ within an address
CURVE: Final = "valid_"


def render_report(report: Mapping[str, Any], leaderboard: Mapping[str, Any]) -> str:
    """Write the report.

    Args:
        report: ``report.json`` of stage ``evaluate`` (curves, distillation, data, audit), with the facts of the run
            that no manifest may hold: name, config, versions, seconds. Every key may be absent.
        leaderboard: the content of ``leaderboard.json``.
    """
    environment = Environment(
        loader=PackageLoader("components.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    metric, metrics = main_metric(leaderboard["cutoffs"]), tables.shown_metrics(leaderboard)
    return environment.get_template(TEMPLATE).render(
        title=report.get("name") or leaderboard.get("dataset") or "run",
        headline=headline(leaderboard),
        leaderboard=leaderboard,
        metric=metric,
        metrics=metrics,
        best=tables.best_names(leaderboard["rows"], metrics),
        # matplotlib wrote these pictures and escaped their labels
        pictures=[(picture, Markup(picture.svg)) for picture in report_pictures(report, leaderboard)],  # noqa: S704
        data=report.get("data") or {},
        findings=(report.get("audit") or {}).get("findings") or [],
        audit=flat({key: value for key, value in (report.get("audit") or {}).items() if key != "findings"}),
        counts=flat(report.get("counts") or {}),
        versions=report.get("versions") or {},
        seeds=report.get("seeds") or [],
        seconds=report.get("seconds") or {},
        config=shown_config(report.get("config") or {}),
        tables=tables,
        metric_title=plots.metric_title,
    )


def report_pictures(report: Mapping[str, Any], leaderboard: Mapping[str, Any]) -> list[Picture]:
    """All pictures for which the run has something to show."""
    rows, metric = leaderboard["rows"], main_metric(leaderboard["cutoffs"])
    colors = plots.series_colors(row["name"] for row in rows)
    candidates = [
        plots.metric_bars(rows, [metric, metric.replace("ndcg", "recall")]),
        plots.quality_against_cost(rows, metric),
        front_picture(report.get("search") or {}),
        plots.training_curves(report.get("curves") or {}, curve_metric(report, metric), colors),
        plots.teacher_weights(report.get("distillation") or {}, colors),
        plots.slice_bars(rows, metric, leaderboard.get("baseline"), colors),
        plots.data_shape(report.get("data") or {}),
    ]
    return [picture for picture in candidates if picture is not None]


def curve_metric(report: Mapping[str, Any], default: str) -> str:
    """The key of the validation metric within an epoch; training may watch another one than the leaderboard."""
    epochs = (epoch for runs in (report.get("curves") or {}).values() for run in runs for epoch in run)
    return next((key for epoch in epochs for key in epoch if key.startswith(CURVE)), CURVE + default)


def flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested facts as lines of a table; long lists are cut.

    >>> flat({"leak": {"users": 3, "share": 0.25}, "split": "leave_one_out"})
    {'leak.users': '3', 'leak.share': '0.25', 'split': 'leave_one_out'}
    """
    lines: dict[str, str] = {}
    for key, value in facts.items():
        if isinstance(value, Mapping):
            lines |= flat(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else _json(value)
            lines[f"{prefix}{key}"] = text if len(text) <= 400 else f"{text[:400]} …"
    return lines


def _json(value: Any) -> str:
    return (
        f"{value:,}"
        if isinstance(value, int) and not isinstance(value, bool)
        else json.dumps(value, ensure_ascii=False)
    )


def shown_config(config: Mapping[str, Any]) -> str:
    """The configuration as JSON, without passwords that stand in addresses.

    >>> shown_config({"data": "s3://key:secret@bucket/logs"})
    '{\\n  "data": "s3://***@bucket/logs"\\n}'
    """
    return CREDENTIALS.sub("***@", json.dumps(config, indent=2, ensure_ascii=False)) if config else ""
