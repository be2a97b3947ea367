"""Charts in SVG, coloured by the page's style."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 22, 12, 44
_COLOURS = 6
_ROW = 17  # of the legend


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """`lines`: points joined; otherwise dots, with `names` beside those that have one."""

    name: str
    points: Sequence[tuple[float, float]]
    lines: bool = True
    dashed: bool = False
    steps: bool = False
    colour: int = 0
    names: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """`says`: what is to be seen, below it. Axes begin at 0."""

    says: str
    across: str
    up: str
    series: Sequence[Series]
    top: float | None = None

    def svg(self) -> str:
        points = [point for one in self.series for point in one.points]
        right = _round_up(max((x for x, _ in points), default=1.0))
        top = self.top or _round_up(max((y for _, y in points), default=1.0))
        height = _HEIGHT + _ROW * len(self.series)
        frame = _Frame(right, top)
        parts = [frame.axes(self.across, self.up)]
        parts += [frame.draw(one) for one in self.series]
        for number, one in enumerate(self.series):
            y = _HEIGHT + _ROW * number + 8
            mark = f'style="stroke:var(--c{one.colour % _COLOURS})"'
            dashed = ' class="guess"' if one.dashed else ""
            if one.lines:
                parts.append(f'<path{dashed} {mark} d="M{_LEFT} {y}h26"/>')
            else:
                parts.append(
                    f'<circle cx="{_LEFT + 13}" cy="{y}" r="5" style="fill:var(--c{one.colour % _COLOURS})"/>'
                )
            parts.append(f'<text class="name" x="{_LEFT + 34}" y="{y + 4}">{escape(one.name)}</text>')
        said = escape(self.says, quote=True)
        return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{said}">{"".join(parts)}</svg>'


@dataclass(frozen=True, slots=True)
class _Frame:
    right: float
    top: float

    def x(self, value: float) -> float:
        return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * value / self.right, 1)

    def y(self, value: float) -> float:
        return round(_TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - min(value, self.top) / self.top), 1)

    def axes(self, across: str, up: str) -> str:
        parts = []
        for tick in _ticks(self.right):
            x = self.x(tick)
            parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{_TOP}" y2="{self.y(0)}"/>')
            parts.append(f'<text x="{x}" y="{self.y(0) + 16}" text-anchor="middle">{tick:g}</text>')
        for tick in _ticks(self.top):
            y = self.y(tick)
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
            parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
        middle, side = (_LEFT + _WIDTH - _RIGHT) / 2, (_TOP + self.y(0)) / 2
        parts.append(f'<text x="{middle}" y="{self.y(0) + 34}" text-anchor="middle">{escape(across)}</text>')
        parts.append(
            f'<text x="14" y="{side}" text-anchor="middle" transform="rotate(-90 14 {side})">{escape(up)}'
            "</text>"
        )
        return "".join(parts)

    def draw(self, series: Series) -> str:
        colour = f"var(--c{series.colour % _COLOURS})"
        if not series.lines:
            return "".join(
                f'<circle cx="{self.x(x)}" cy="{self.y(y)}" r="5" style="fill:{colour}" fill-opacity=".8">'
                f"<title>{escape(name)}</title></circle>"
                for (x, y), name in zip(series.points, series.names, strict=True)
            )
        if not series.points:
            return ""
        (x, y), *rest = series.points
        path = f"M{self.x(x)} {self.y(y)}"
        for x, y in rest:
            path += f"H{self.x(x)}V{self.y(y)}" if series.steps else f"L{self.x(x)} {self.y(y)}"
        dashed = ' class="guess"' if series.dashed else ""
        return f'<path{dashed} style="stroke:{colour}" d="{path}"/>'


def _ticks(top: float) -> list[float]:
    step = _step(top)
    return [round(step * n, 10) for n in range(int(top / step + 1e-9) + 1)]


def _step(top: float) -> float:
    rough = top / 5
    power = 10 ** math.floor(math.log10(rough))
    return float(next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough - 1e-12))


def _round_up(value: float) -> float:
    if not value > 0:
        return 1.0
    step = _step(value)
    return math.ceil(value / step - 1e-9) * step
