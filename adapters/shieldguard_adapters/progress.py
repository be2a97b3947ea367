"""How far a command is, shown where somebody looks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn


class Stage(Protocol):
    def __call__(self, what: str, count: int, /, done: int = 0) -> Callable[[], None]:
        """Begin a stage of `count` steps; what it answers with is to be called as each is done."""
        ...


@contextmanager
def stages() -> Iterator[Stage]:
    """Each stage with its rate and the time that is left."""
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(""),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
        disable=not console.is_terminal,
    )
    with progress:

        def stage(what: str, count: int, /, done: int = 0) -> Callable[[], None]:
            task = progress.add_task(what, total=count, completed=done)
            return lambda: progress.advance(task)

        yield stage


class _Rate(TextColumn):
    def render(self, task: Task) -> Any:
        self.text_format = "" if task.speed is None else f"{task.speed:.3g} a second"
        return super().render(task)
