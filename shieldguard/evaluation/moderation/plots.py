"""The pictures of the HTML report."""

from collections.abc import Sequence

from shieldguard.evaluation.bootstrap import Estimate

_SIZE = 240
_LEFT, _TOP, _RIGHT, _BOTTOM = 44, 10, 12, 40
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def track(found: Estimate) -> str:
    """A line from 0 to 1 with the value and its interval."""
    if found.value != found.value:
        return '<span class="track"></span>'
    left, width = 100 * found.low, 100 * (found.high - found.low)
    return (
        f'<span class="track"><i style="left:{left:.2f}%;width:{width:.2f}%">'
        f'</i><b class="mine" style="left:{100 * found.value:.2f}%"></b></span>'
    )


def dot(value: float) -> str:
    """The same for a value of somebody else's."""
    return f'<span class="track"><b style="left:{100 * value:.2f}%"></b></span>'


def curve(
    points: Sequence[tuple[float, float]],
    *,
    across: str,
    up: str,
    chance: tuple[tuple[float, float], tuple[float, float]],
    at: tuple[float, float],
    said: str,
) -> str:
    """A curve in the unit square: what a judge by chance would have, and the point where the judge stands.

    `said`: what the picture shows, for those who do not see it."""
    grid = "".join(
        f'<line class="grid" x1="{_x(0)}" x2="{_x(1)}" y1="{_y(tick)}" y2="{_y(tick)}"/>'
        f'<line class="grid" x1="{_x(tick)}" x2="{_x(tick)}" y1="{_y(0)}" y2="{_y(1)}"/>'
        f'<text x="{_x(0) - 6}" y="{_y(tick) + 4}" text-anchor="end">{100 * tick:.0f}</text>'
        f'<text x="{_x(tick)}" y="{_y(0) + 15}" text-anchor="middle">{100 * tick:.0f}</text>'
        for tick in _TICKS
    )
    (x1, y1), (x2, y2) = chance
    line = " ".join(f"{_x(x)},{_y(y)}" for x, y in points)
    middle = _y(0.5)
    width, height = _LEFT + _SIZE + _RIGHT, _TOP + _SIZE + _BOTTOM
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{said}">'
        f"{grid}"
        f'<line class="chance" x1="{_x(x1)}" y1="{_y(y1)}" x2="{_x(x2)}" y2="{_y(y2)}"/>'
        f'<polyline class="curve" points="{line}"/>'
        f'<circle class="point" cx="{_x(at[0])}" cy="{_y(at[1])}" r="5"/>'
        f'<text x="{_x(0.5)}" y="{_y(0) + 33}" text-anchor="middle">{across}, %</text>'
        f'<text x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">{up}, %</text>'
        "</svg>"
    )


def _x(value: float) -> float:
    return round(_LEFT + _SIZE * value, 1)


def _y(value: float) -> float:
    return round(_TOP + _SIZE * (1 - value), 1)
