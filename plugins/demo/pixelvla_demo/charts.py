"""Hand-written SVG that takes its colours from the page: intervals in table cells, and learning curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 20, 34, 40
COLOURS = 6
Point = tuple[float, float]


def interval(low: float, value: float, high: float) -> str:
    """Return a bar over [0, 1] with an interval and a dot at the value."""
    return (
        '<svg class="range" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" x="0" y="2.5" width="100" height="3"/>'
        f'<rect class="span" x="{100 * low:.2f}" y="1.5" width="{100 * (high - low):.2f}" height="5"/>'
        f'<rect class="dot" x="{min(100 * value, 98.8):.2f}" y="0" width="1.2" height="8"/></svg>'
    )


def smooth(points: Sequence[Point], share: float = 0.05) -> list[Point]:
    """Return the points with y averaged over neighbours, ``share`` of the curve wide."""
    reach = int(len(points) * share / 2)
    found = []
    for index, (x, _) in enumerate(points):
        near = points[max(0, index - reach) : index + reach + 1]
        found.append((x, sum(y for _, y in near) / len(near)))
    return found


def curves(title: str, series: Sequence[tuple[str, Sequence[Point]]], x_label: str) -> str:
    """Return a chart of some curves with finite points; thin: as logged, thick: smoothed."""
    series = [(name, [point for point in points if all(map(math.isfinite, point))]) for name, points in series]
    drawn = [(name, points) for name, points in series if points]
    if not drawn:
        return ""
    xs, ys = zip(*(point for _, points in drawn for point in points), strict=True)
    frame = _Frame(0.0, max(xs), *_span(ys))
    parts = [f'<text class="title" x="{LEFT}" y="16">{escape(title)}</text>', *frame.grid(), *_legend(drawn)]
    for number, (_, points) in enumerate(drawn):
        colour = f"var(--s{number % COLOURS})"
        parts.append(f'<path class="raw" stroke="{colour}" d="{frame.path(points)}"/>')
        parts.append(f'<path stroke="{colour}" d="{frame.path(smooth(points))}"/>')
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>'
    )
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'


class _Frame:
    """Maps values to the chart's units."""

    def __init__(self, x0: float, x1: float, y0: float, y1: float) -> None:
        self.x0, self.x1, self.y0, self.y1 = x0, x1 if x1 > x0 else x0 + 1, y0, y1

    def x(self, value: float) -> float:
        return LEFT + (value - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y0) / (self.y1 - self.y0) * (HEIGHT - TOP - BOTTOM)

    def path(self, points: Sequence[Point]) -> str:
        return "M" + "L".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)

    def grid(self) -> list[str]:
        lines = []
        for value in ticks(self.y0, self.y1):
            y = self.y(value)
            lines.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            lines.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
        for value in ticks(self.x0, self.x1):
            lines.append(
                f'<text x="{self.x(value):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:g}</text>'
            )
        return lines


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return at most ``most`` round numbers in a range."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _span(ys: Sequence[float]) -> tuple[float, float]:
    """From zero, if that costs little height, to the largest value but a few spikes at the start."""
    ranked = sorted(ys)
    low, high = ranked[0], ranked[min(len(ranked) - 1, int(len(ranked) * 0.99))]
    low = 0.0 if 0 <= low < 0.6 * high else low
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _legend(series: Sequence[tuple[str, Sequence[Point]]]) -> list[str]:
    parts, right = [], float(WIDTH - RIGHT)
    for number, (name, _) in reversed(list(enumerate(series))):
        right -= 7.0 * len(name) + 22
        parts.append(f'<rect x="{right:.0f}" y="8" width="12" height="3" fill="var(--s{number % COLOURS})"/>')
        parts.append(f'<text x="{right + 16:.0f}" y="14">{escape(name)}</text>')
    return parts if len(series) > 1 else []
