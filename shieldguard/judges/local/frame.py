"""What a model is shown around a query and a thought, as its chat template or a prompt file has it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shieldguard.errors import ConfigError
from shieldguard.judges.contract import DATE
from shieldguard.judges.dialects import Dialect

# Stand for query and thought, each in white space that no template writes: where it is gone, it was stripped.
_QUERY, _THOUGHT = "\vshieldguard-query\v", "\vshieldguard-thought\v"


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """`before` and `after` are trusted, and never change; `content` makes what stands between them of a query
    and a thought. `strips`: white space at the thought's end is left out, as the template does. `begin`: a
    token that the tokenizer puts before a text by itself."""

    before: str
    after: str
    content: Callable[[str, str], str]
    strips: bool
    begin: int | None = None

    @classmethod
    def of(cls, tokenizer: Any, dialect: Dialect, prompt: str) -> "Frame":
        """Raises `ConfigError` for a chat template that cannot be used."""
        if dialect.prompt_text is not None:
            return _of_text(tokenizer, dialect.prompt_text)
        messages = dialect.messages(prompt, _QUERY, _THOUGHT)
        rendered = _rendered(tokenizer, messages)
        for at, message in enumerate(messages):
            if _QUERY in message["content"] and _THOUGHT in message["content"]:
                return _of_one_message(dialect, prompt, rendered, at)
        return _of_two_messages(rendered)


def _rendered(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    # Templates of models that could be given images, too, want a message in parts.
    in_parts = [
        {"role": one["role"], "content": [{"type": "text", "text": one["content"]}]} for one in messages
    ]
    problems = []
    for given in (messages, in_parts):
        try:
            rendered: str = tokenizer.apply_chat_template(
                given, tokenize=False, add_generation_prompt=True, date_string=DATE
            )
        except Exception as error:
            problems.append(str(error))
            continue
        query, thought = rendered.find(_QUERY.strip()), rendered.rfind(_THOUGHT.strip())
        if 0 <= query < thought:
            return rendered
        problems.append("it does not write the query, and then the thought")
    raise ConfigError(f"the checkpoint's chat template cannot be used: {problems[0]}")


def _of_one_message(dialect: Dialect, prompt: str, rendered: str, at: int) -> Frame:
    content = dialect.messages(prompt, _QUERY, _THOUGHT)[at]["content"]
    strips = content not in rendered
    before, _, after = rendered.rpartition(content.strip() if strips else content)

    def message(query: str, thought: str) -> str:
        text = dialect.messages(prompt, query, thought)[at]["content"]
        return text.strip() if strips else text

    return Frame(before=before, after=after, content=message, strips=strips)


def _of_two_messages(rendered: str) -> Frame:
    strips_query, strips = (one not in rendered for one in (_QUERY, _THOUGHT))
    before, _, rest = rendered.partition(_QUERY.strip() if strips_query else _QUERY)
    between, _, after = rest.rpartition(_THOUGHT.strip() if strips else _THOUGHT)

    def content(query: str, thought: str) -> str:
        query = query.strip() if strips_query else query
        return query + between + (thought.strip() if strips else thought)

    return Frame(before=before, after=after, content=content, strips=strips)


def _of_text(tokenizer: Any, text: str) -> Frame:
    before, _, rest = text.partition("{query}")
    between, _, after = rest.partition("{thought}")
    begin = tokenizer.bos_token_id
    if begin is None or before.startswith(tokenizer.bos_token) or tokenizer("").input_ids[:1] != [begin]:
        begin = None
    return Frame(
        before=before,
        after=after,
        content=lambda query, thought: query + between + thought,
        strips=False,
        begin=begin,
    )
