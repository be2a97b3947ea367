"""How well a judge rates whole texts, as ReasoningShield's model card measures moderation."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from shieldguard.evaluation.rows import Columns
from shieldguard.events import Channel

__all__ = ["QA", "QT", "Task"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is rated. `columns`: those of the authors' test file. `noun`: what a row is called."""

    name: str
    title: str
    noun: str
    channel: Channel
    columns: Columns

    @property
    def sample(self) -> Path:
        """A small file of our own that comes along: to try the command, not to tell judges apart."""
        return Path(str(resources.files(__name__).joinpath(f"sample_{self.name}.csv")))


_GROUPS = ("class", "category", "source", "model_name", "model", "label_by")

QT = Task(
    name="qt",
    title="QT moderation",
    noun="traces",
    channel=Channel.REASONING,
    columns=Columns(question="query", text="model_thinking", label="human_majority", groups=_GROUPS),
)
QA = Task(
    name="qa",
    title="QA moderation",
    noun="answers",
    channel=Channel.ANSWER,
    columns=Columns(question="query", text="response", label="unsafe_label", groups=_GROUPS),
)
