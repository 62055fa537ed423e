"""Numbers and tables as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from offramp.report.table import Table
from offramp.words import enumerated


def percent(value: float, half_width: float | None = None) -> str:
    """A share in per cent, with the half width of its interval if there is one."""
    if math.isnan(value):
        return "-"
    if half_width is None:
        return f"{100 * value:.1f} %"
    if math.isnan(half_width):
        return f"{100 * value:.1f} % (no interval)"
    return f"{100 * value:.1f} ± {100 * half_width:.1f} %"


def points(value: float, half_width: float) -> str:
    """A difference of shares in percentage points, with the half width of its interval."""
    interval = "(no interval)" if math.isnan(half_width) else f"± {100 * half_width:.2f}"
    return f"{100 * value:+.2f} {interval}"


def p_value(p: float) -> str:
    """Of a test; what is tiny as a bound."""
    if math.isnan(p):
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def milliseconds(*seconds: float) -> str:
    """Durations in ms, parted by slashes."""
    return " / ".join("-" if math.isnan(one) else f"{1e3 * one:.1f}" for one in seconds)


def number(value: float, half_width: float = 0.0) -> str:
    """A number to three digits, with the half width of its interval if there is one.

    Without an exponent below 100 000; the half width has as many decimals as the number.
    """
    if math.isnan(value):
        return "-"
    size = abs(value)
    if not half_width > 0 or math.isinf(size):
        return f"{value:.0f}" if 999.5 <= size < 1e5 else f"{value:.3g}"
    if size >= 1e5:
        power = math.floor(math.log10(size))
        return f"({value / 10**power:.2f} ± {half_width / 10**power:.2f})e{power:+03d}"
    decimals = max(0, 2 - math.floor(math.log10(size))) if size else 0
    if half_width > 1e-6 * size:  # else it is rounding error: no need to see it
        decimals = max(decimals, -math.floor(math.log10(half_width)))
    return f"{value:.{decimals}f} ± {half_width:.{decimals}f}"


def listed(names: Sequence[str]) -> str:
    """Names as code: ``a``, ``b`` and ``c``."""
    return enumerated([f"`{name}`" for name in names])


def load_share(value: float) -> str:
    """A load as a share of what can be carried, to two digits."""
    return f"{value:#.2g}" if value < 9.95 else f"{value:.0f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; what would end a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines)


def rendered(shown: Table) -> str:
    """A table and its note."""
    return table(shown.header, shown.rows) + (f"\n\n{shown.note}" if shown.note else "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
