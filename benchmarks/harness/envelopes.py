"""Lines and curves below all points: what a measurement says at least."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """A time per token that grows with the token's position.

    Args:
        base_s: At position 0; alpha of the bounds.
        slope_s: For each position; beta.
    """

    base_s: float
    slope_s: float

    def total(self, tokens: float, positions: float) -> float:
        """Seconds for so many tokens, the sum of whose positions is given."""
        return self.base_s * tokens + self.slope_s * positions


def lower_envelope(points: Sequence[Point]) -> Line:
    """Of the lines that no point lies below, falling nowhere, the one that is closest to all.

    Args:
        points: Pairs of a mean position and a time per token there, neither below 0.
    """
    steepest = min((y / x for x, y in points if x > 0), default=0.0)  # then it starts at 0
    slopes = {0.0, steepest} | {
        slope
        for x, y in points
        for other_x, other_y in points
        if other_x > x and 0 < (slope := (other_y - y) / (other_x - x)) < steepest
    }
    lines = [Line(max(min(y - slope * x for x, y in points), 0.0), slope) for slope in slopes]
    sums = len(points), sum(x for x, _ in points)
    return max(lines, key=lambda line: line.total(*sums))


def lower_hull(points: Sequence[Point]) -> tuple[Point, ...]:
    """Corners of the convex function that is closest below all points, by x (Andrew, 1979)."""
    hull: list[Point] = []
    for x, y in sorted(points):
        if hull and hull[-1][0] == x:
            continue  # a higher one above the same place
        while len(hull) > 1:
            (x1, y1), (x2, y2) = hull[-2:]
            if (y2 - y1) * (x - x1) < (y - y1) * (x2 - x1):
                break
            hull.pop()
        hull.append((x, y))
    return tuple(hull)


def on_hull(hull: Sequence[Point], x: float) -> float:
    """The hull's value; before its beginning in proportion to x, past its end as it rose to it."""
    (first_x, first_y), (last_x, last_y) = hull[0], hull[-1]
    if x < first_x or len(hull) == 1:
        return first_y * x / first_x
    if x <= last_x:
        return float(np.interp(x, [corner[0] for corner in hull], [corner[1] for corner in hull]))
    # From farther back: two corners close to each other tell little of how the hull goes on.
    back_x, back_y = max(corner for corner in hull[:-1] if corner[0] <= max(0.8 * last_x, first_x))
    return last_y + (last_y - back_y) * (x - last_x) / (last_x - back_x)
