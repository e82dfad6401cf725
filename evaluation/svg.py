"""Plots as SVG text: bars, and cumulative curves. Colours come from the page's CSS classes; no I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 520, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 30, 14, 44
_MOST_POINTS = 200


def bars(values: Mapping[str, Mapping[str, float]], *, label: str, unit: str = "") -> str:
    """Grouped bars. `values` has the groups' names, and in each the value of every series."""
    series = list(dict.fromkeys(name for group in values.values() for name in group))
    top = _round(max((value for group in values.values() for value in group.values()), default=0.0))
    step = (WIDTH - LEFT - RIGHT) / max(1, len(values))
    width = step * 0.8 / max(1, len(series))
    parts = _frame(top, unit)
    for at, (group, shown) in enumerate(values.items()):
        for number, name in enumerate(series):
            value = shown.get(name, 0.0)
            x, y = LEFT + at * step + step * 0.1 + number * width, _y(value, top)
            title = f"{group}, {name}: {value:.4g}{unit}"
            parts.append(
                f'<rect class="s{number % 4}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
                f'height="{HEIGHT - BOTTOM - y:.1f}"><title>{escape(title)}</title></rect>'
            )
        parts.append(_text(LEFT + (at + 0.5) * step, HEIGHT - BOTTOM + 16, group, "middle"))
    return _svg(parts, series, label)


def cumulative(series: Mapping[str, Sequence[float]], *, label: str, unit: str = "ms") -> str:
    """For each series the share of values (upward) that are at most so much (to the right, a logarithmic scale)."""
    drawn = {name: sorted(max(1.0, value) for value in values) for name, values in series.items() if values}
    if not drawn:
        return ""
    low = math.floor(math.log10(min(values[0] for values in drawn.values())))
    high = max(low + 1, math.ceil(math.log10(max(values[-1] for values in drawn.values()))))

    def x_of(value: float) -> float:
        return LEFT + (math.log10(value) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    parts = _frame(100.0, " %")
    for power in range(low, high + 1):
        x = x_of(10.0**power)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(_text(x, HEIGHT - BOTTOM + 16, f"{10**power:g} {unit}" if power >= 0 else "", "middle"))
    for number, values in enumerate(drawn.values()):
        count = len(values)
        chosen = sorted({round(at * (count - 1) / _MOST_POINTS) for at in range(_MOST_POINTS + 1)})
        points = " ".join(f"{x_of(values[at]):.1f},{_y(100 * (at + 1) / count, 100):.1f}" for at in chosen)
        start = f"{x_of(values[0]):.1f},{_y(0, 100):.1f} "
        parts.append(f'<polyline class="l{number % 4}" points="{start}{points}"/>')
    return _svg(parts, list(drawn), label)


def over_time(series: Mapping[str, Sequence[tuple[float, float]]], *, label: str, unit: str = "ms") -> str:
    """For each series its values (upward) at so many seconds (to the right)."""
    drawn = {name: sorted(points) for name, points in series.items() if points}
    if not drawn:
        return ""
    top = _round(max(value for points in drawn.values() for _, value in points))
    first = min(points[0][0] for points in drawn.values())
    span = max(points[-1][0] for points in drawn.values()) - first or 1.0
    parts = _frame(top, f" {unit}")
    for share in (0, 0.25, 0.5, 0.75, 1):
        x = LEFT + share * (WIDTH - LEFT - RIGHT)
        parts.append(_text(x, HEIGHT - BOTTOM + 16, f"{first + share * span:.0f} s", "middle"))
    for number, points in enumerate(drawn.values()):
        places = ((LEFT + (at - first) / span * (WIDTH - LEFT - RIGHT), _y(value, top)) for at, value in points)
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="l{number % 4}" points="{line}"/>')
    return _svg(parts, list(drawn), label)


def intervals(rows: Sequence[tuple[str, float, float, float]], *, label: str) -> str:
    """A line for each row, (name, difference, low, high), with 0 marked; for values from -1 to 1."""
    reach = max((abs(end) for row in rows for end in row[1:]), default=0.0) or 1.0
    left, height = 150, 26 * len(rows) + 40
    middle, half = left + (WIDTH - left - RIGHT) / 2, (WIDTH - left - RIGHT) / 2
    parts = [f'<line class="axis" x1="{middle}" y1="8" x2="{middle}" y2="{height - 30}"/>']
    for at, (name, difference, low, high) in enumerate(rows):
        y = 22 + at * 26
        x0, x1, x = (middle + value / reach * half for value in (low, high, difference))
        parts.append(_text(left - 8, y + 4, name, "end"))
        parts.append(f'<line class="l0" x1="{x0:.1f}" y1="{y}" x2="{x1:.1f}" y2="{y}"/>')
        title = f"{name}: {difference:+.4g}, {low:+.4g} to {high:+.4g}"
        parts.append(f'<circle class="s0" cx="{x:.1f}" cy="{y}" r="4"><title>{escape(title)}</title></circle>')
    parts += [
        _text(middle + value / reach * half * 0.94, height - 12, f"{value:+.3g}", "middle")
        for value in (-reach, 0.0, reach)
    ]
    return _svg(parts, [], label, height)


def _frame(top: float, unit: str) -> list[str]:
    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = _y(top * share, top)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{top * share:.3g}{unit}", "end"))
    return parts


def _round(value: float) -> float:
    """The next number upward that can be divided by four and read."""
    power = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return next(step * power for step in (1, 2, 4, 8, 10) if step * power >= value)


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - value / top * (HEIGHT - BOTTOM - TOP)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(parts: Sequence[str], series: Sequence[str], label: str, height: int = HEIGHT) -> str:
    legend = []
    if len(series) > 1:
        for number, name in enumerate(series):
            x = LEFT + number * 118
            legend.append(f'<rect class="s{number % 4}" x="{x}" y="{height - 13}" width="10" height="10"/>')
            legend.append(_text(x + 15, height - 4, name, "start"))
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">'
        f"<title>{escape(label)}</title>{''.join(parts)}{''.join(legend)}</svg>"
    )
