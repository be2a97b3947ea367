"""Lessons to tokens: the prompt is laid out by the code that the judge lays it out with."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shieldguard.errors import ConfigError
from shieldguard.judges.contract import MAX_ANALYSIS_TOKENS
from shieldguard.judges.local.layout import Layout
from shieldguard.judges.local.text import GrowingText
from shieldguard.training.finetune.lessons import Lesson, Pair

logger = logging.getLogger("shieldguard")

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Example:
    """The tokens up to the reply, and those of each reply with the end of its turn."""

    prompt: list[int]
    replies: list[list[int]]

    def __len__(self) -> int:
        return len(self.prompt) + max(map(len, self.replies))


def encoded(lessons: Sequence[Lesson | Pair], tokenizer: Any, prompt: str, longest: int) -> list[Example]:
    """The examples of all lessons of at most `longest` tokens. Of the others a warning tells: nothing is
    cut. Raises `ConfigError` for a checkpoint whose prompt cannot be laid out, and where nothing is left."""
    # A judge with so much room cuts nothing of what is short enough.
    layout = Layout(tokenizer, prompt, limit=max(4 * longest, 4096))
    found: list[Example] = []
    too_long: dict[str, int] = {}
    unfinished: list[str] = []
    for lesson in lessons:
        context = layout.context(lesson.query, lesson.thought, GrowingText(), reserve=0, tail=layout.tail)
        replies = [[*layout.encode(reply), layout.turn[0]] for reply in lesson.replies]
        example = Example(context.tokens + layout.turn, replies)
        if len(example) > longest or context.of_query or context.of_thought:
            too_long[lesson.where] = len(example)
        else:
            found.append(example)
            if len(replies[0]) > MAX_ANALYSIS_TOKENS:
                unfinished.append(lesson.where)
    if not found:
        raise ConfigError(
            f"none of the {len(lessons)} rows has at most {longest} tokens; the shortest has "
            f"{min(too_long.values())}: give a higher max_length"
        )
    if too_long:
        logger.warning(
            "shieldguard: %d of %d rows are left out, as they have more than %d tokens (the longest %d): %s",
            *(len(too_long), len(lessons), longest, max(too_long.values()), _named([*too_long])),
        )
    if unfinished:
        logger.warning(
            "shieldguard: the replies of %d rows are longer than the %d tokens that a judge lets a model "
            "write unless it is told otherwise (max_analysis): %s",
            *(len(unfinished), MAX_ANALYSIS_TOKENS, _named(unfinished)),
        )
    return found


def _named(rows: Sequence[str]) -> str:
    rows = list(dict.fromkeys(rows))
    return "; ".join(rows[:_SHOWN]) + (f"; and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else "")
