"""Times in all the spellings that logs use -> microseconds since the epoch.

The rule: a number below 1e11 counts seconds, below 1e14 milliseconds, below 1e17 microseconds, else nanoseconds (so
1973 is the first year that milliseconds can tell). Text is such a number, a date, or an ISO time; a time without a zone
is UTC. The rule looks at one value alone, so no partition can change it.
"""

from __future__ import annotations

from typing import Final

import polars as pl

SECOND: Final = 1_000_000  # microseconds
DAY: Final = 86_400 * SECOND
_ISO_FORMATS: Final = ("%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M")
_LIMIT: Final = 9.2e18  # beyond int64


def parse_times(raw: pl.Series) -> pl.Series:
    """Microseconds since the epoch, null where `raw` is no time.

    >>> parse_times(pl.Series(["1.5", "978300760000", "1970-01-02", "soon"])).to_list()
    [1500000, 978300760000000, 86400000000, None]
    """
    if raw.dtype.is_temporal():
        zoned = raw.cast(pl.Datetime("us")) if raw.dtype == pl.Date else raw
        return zoned.dt.timestamp("us")
    if raw.dtype == pl.String:
        return _from_text(raw)
    return _from_numbers(raw)


def parse_time(value: int | str) -> int | None:
    """One time of the configuration; None where it is none."""
    return parse_times(pl.Series([value])).item()  # type: ignore[no-any-return]


def _from_text(raw: pl.Series) -> pl.Series:
    numbers = raw.cast(pl.Int64, strict=False)
    times = _from_numbers(numbers)
    if times.null_count() == raw.null_count():
        return times
    rest = raw.str.strip_chars()
    times = times.fill_null(_from_numbers(rest.cast(pl.Float64, strict=False)))
    if times.null_count() == raw.null_count():
        return times
    return times.fill_null(_from_iso(rest))


def _from_numbers(raw: pl.Series) -> pl.Series:
    """Scale by magnitude; whole numbers stay whole."""
    name = raw.name
    value, size = pl.col(name), pl.col(name).abs()
    whole = raw.dtype.is_integer()
    scaled = (
        pl.when(size < 1e11)
        .then(value * SECOND)
        .when(size < 1e14)
        .then(value * 1000)
        .when(size < 1e17)
        .then(value)
        .when(size < _LIMIT)
        .then(value // 1000)
    )
    frame = raw.cast(pl.Int64, strict=False).to_frame() if whole else raw.cast(pl.Float64, strict=False).to_frame()
    if not whole:
        frame = frame.with_columns(pl.when(value.is_finite()).then(value).alias(name))
    return frame.select(scaled.cast(pl.Int64, strict=False).alias(name)).to_series()


def _from_iso(text: pl.Series) -> pl.Series:
    dates = text.str.to_date("%Y-%m-%d", strict=False, exact=True).cast(pl.Datetime("us")).dt.timestamp("us")
    unified = text.str.replace(" ", "T")
    for form in _ISO_FORMATS:
        dates = dates.fill_null(unified.str.to_datetime(form, strict=False, time_unit="us").dt.timestamp("us"))
    return dates
