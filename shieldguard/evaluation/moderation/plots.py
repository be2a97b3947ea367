"""A share between 0 and 1 as a mark on a line, for tables of the HTML report."""

from shieldguard.evaluation.bootstrap import Estimate


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
