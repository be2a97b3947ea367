"""What a thought answers: the query that goes to the judge with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat, as text. `unseen`: it stands for history that only the server holds."""

    role: str
    text: str
    unseen: bool = False


QueryFrom: TypeAlias = Callable[[Sequence[Message]], str]


def last_user_turn(messages: Sequence[Message]) -> str:
    """The text of the last user message, the default query; "" where there is none."""
    return next((message.text for message in reversed(messages) if message.role == "user"), "")


def history(max_characters: int = 4000) -> QueryFrom:
    """A query made of the whole chat, each message under its role, the newest kept where it is too long."""

    def render(messages: Sequence[Message]) -> str:
        kept: list[str] = []
        room = max_characters
        for older, message in reversed(list(enumerate(messages))):
            text = "(history held by the server, not seen)" if message.unseen else message.text
            line = f"{message.role}: {text}"
            if len(line) + (2 if older else 0) > room:  # a line must be left to say that there was more
                head = f"{message.role}: …"
                if not kept and room > len(head):
                    kept.append(head + text[len(head) - room :])
                elif room > 0:
                    kept.append("…")
                break
            kept.append(line)
            room -= len(line) + 1
        return "\n".join(reversed(kept))

    return render
