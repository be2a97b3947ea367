"""What a server is asked about a window: a text of bounded length, in which no special token is spelt.

The server parses special tokens wherever they stand, also within the text of strangers. So there they are
broken with a space, which the model reads past and no tokenizer does.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shieldguard.errors import ConfigError
from shieldguard.judges.contract import (
    DATE,
    FALLBACK_PROMPT,
    LEFT_OUT,
    PROMPT_FILE,
    left_out_note,
    user_message,
)
from shieldguard.judges.dialects import Dialect
from shieldguard.windows import Window

LLAMA = (
    "<|start_header_id|>system<|end_header_id|>\n\n"
    f"Cutting Knowledge Date: December 2023\nToday Date: {DATE}\n\n"
    "{system}<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
    "{user}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
)
"""What Llama-3.2's chat template writes, but for the begin-of-text token: servers put that themselves."""

# Servers put the begin-of-text token themselves.
_BEGIN = re.compile(r"\A(?:<s>|<\|begin_of_text\|>)")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Question:
    """A query and a thought as they are sent. `note`: what there was no room for."""

    query: str
    thought: str
    note: str

    @property
    def message(self) -> str:
        return user_message(self.query, self.thought).strip()


class Asking:
    """`context`: characters of query and thought at most. `template`: a conversation with "{system}" and
    "{user}" in it. `special`: what the model's special tokens begin with.

    Raises `ConfigError` for settings that cannot work.
    """

    def __init__(
        self, prompt: str, *, dialect: Dialect, template: str, special: Sequence[str], context: int
    ) -> None:
        if context < 1000:
            raise ConfigError(
                f"context={context!r} leaves no room for a thought; give 1000 characters or more"
            )
        pieces = re.split(r"\{(?:system|user)\}", template)
        if len(pieces) != 3 or template.index("{user}") < template.index("{system}"):
            raise ConfigError(f"template={template!r} must hold '{{system}}' once, and then '{{user}}' once")
        if short := [one for one in special if len(one) < 2]:
            raise ConfigError(f"special={short[0]!r} cannot be broken; give two characters or more")
        self.prompt = prompt
        self.dialect = dialect
        before, between, self._after = pieces
        # Chat templates strip messages.
        self._head = before + prompt.strip() + between
        self._special = re.compile(
            "|".join(f"{re.escape(one[0])}(?={re.escape(one[1:])})" for one in special)
        )
        self._breaks = bool(special)
        self._context = context

    def question(self, window: Window) -> Question:
        """What is sent of them.

        Of a query longer than a quarter of the context the middle is left out, of the thought its
        beginning, in strides of half of its room, so that what the server has cached stays of use and the
        newest text is always there.
        """
        query, thought = (_SURROGATE.sub("\ufffd", text) for text in (window.query, window.text))
        of_query = 0
        if len(query) > (most := self._context // 4):
            of_query = len(query) - 2 * (most // 2)
            query = f"{query[: most // 2]} {LEFT_OUT}{query[-(most // 2) :]}"
        room = self._context - len(query)
        left_out = 0
        if len(thought) > room:
            stride = room // 2
            left_out = -(-(len(thought) - room) // stride) * stride
            thought = LEFT_OUT + thought[left_out:]
        if self._breaks:
            query, thought = (self._special.sub(r"\g<0> ", text) for text in (query, thought))
        return Question(query, thought, left_out_note(left_out, of_query))

    def messages(self, question: Question) -> list[dict[str, str]]:
        """For a server that applies the chat template."""
        asked = self.dialect.messages(self.prompt, question.query, question.thought)
        return [*asked[:-1], {**asked[-1], "content": asked[-1]["content"].strip()}]

    def text(self, question: Question) -> str:
        """The conversation up to where the model begins to write."""
        written = self.dialect.prompt_text
        if written is None:
            return self._head + question.message + self._after
        before, _, rest = _BEGIN.sub("", written).partition("{query}")
        between, _, after = rest.partition("{thought}")
        return before + question.query + between + question.thought + after


def read_prompt(prompt: str | Path | None) -> str:
    """The text itself, or that of a file, or of the file in a checkpoint's folder; by default our own.

    Raises `ConfigError` for a file that cannot be read.
    """
    if prompt is None:
        return FALLBACK_PROMPT
    if isinstance(prompt, str) and not prompt.endswith(PROMPT_FILE):
        if not prompt.strip():
            raise ConfigError(f"prompt={prompt!r} is empty; give the model's system prompt, or None for ours")
        return prompt
    file = Path(prompt)
    if file.is_dir():
        file = file / PROMPT_FILE
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the prompt {str(file)!r}: {error}") from error
