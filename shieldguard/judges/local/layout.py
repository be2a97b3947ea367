"""From a query and a thought to the tokens that the model reads.

    head                           content                          tail
    <system prompt> <user header>  "Query: … \\nThought: …"          <end of turn> <assistant header> …

Head and tail come from the chat template and never change. The content is text from strangers: in it no
special token is ever parsed, whatever it spells.
"""

import re
from dataclasses import dataclass
from typing import Any

from tokenizers import Encoding, Tokenizer

from shieldguard.errors import ConfigError
from shieldguard.judges.contract import DATE, JUDGMENT, LABELS, LEFT_OUT, user_message
from shieldguard.judges.local.rows import common_prefix
from shieldguard.judges.local.text import GrowingText
from shieldguard.verdicts import RiskLevel

_STAND_IN = "shieldguard-stand-in"
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Context:
    """The tokens up to the end of the thought. `of_thought`, `of_query`: characters that there was no room
    for, at the thought's beginning and in the query's middle."""

    tokens: list[int]
    of_thought: int
    of_query: int


class Layout:
    """`limit`: how many tokens the model may be shown, what it writes included.

    Raises `ConfigError` for a chat template or a tokenizer that is not of the kind that ReasoningShield
    has, and for a limit that leaves no room for a thought.
    """

    def __init__(self, tokenizer: Any, prompt: str, *, limit: int) -> None:
        trusted = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        trusted.no_padding()
        trusted.no_truncation()
        self._text = Tokenizer.from_str(trusted.to_str())
        self._text.encode_special_tokens = True
        special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.special = special
        before, after, self._strips = _template(tokenizer, prompt)
        head = trusted.encode(before, add_special_tokens=False)
        last = max((at for at, token in enumerate(head.ids) if token in special), default=-1)
        # What stands between the header and the message is tokenised with the message.
        self._glue = before[head.offsets[last][1] :] if last >= 0 else before
        self.head = head.ids[: last + 1]
        self.turn = trusted.encode(after, add_special_tokens=False).ids
        if not self.head or not self.turn or self.turn[0] not in special:
            raise ConfigError(
                "the checkpoint's chat template sets the message between no special tokens, "
                f"as Llama-3's does; it ends with {after!r}"
            )
        bos = tokenizer.bos_token_id
        if bos is not None and self.head.count(bos) != 1:
            raise ConfigError(
                f"the chat template writes {self.head.count(bos)} begin-of-text tokens, not one"
            )
        spelt = "".join(token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
        if special & set(self.encode(spelt)):
            raise ConfigError("the tokenizer parses special tokens in plain text; a thought could forge them")
        pieces = trusted.pre_tokenizer.pre_tokenize_str("ab cd") if trusted.pre_tokenizer else []
        self._has_borders = 2 in [begin for _, (begin, _) in pieces]
        self.labels = Labels.of(trusted, after)
        self.limit = limit
        self._query_limit = limit // 4
        self.check_reserve(len(self.labels.probe))

    def check_reserve(self, reserve: int) -> None:
        """Raise `ConfigError` where `reserve` tokens leave no room for a thought about a long query."""
        if self._room("", reserve) - self._query_limit < 64:
            raise ConfigError(
                f"a context of {self.limit!r} tokens leaves no room for a thought beside {len(self.head)} "
                f"tokens of prompt, {self._query_limit} for the query and {reserve} for the reply; take more"
            )

    def encode(self, text: str) -> list[int]:
        """The tokens of text from strangers."""
        return list(self._encoded(text).ids)

    def context(self, query: str, thought: str, growing: GrowingText, *, reserve: int) -> Context:
        """The tokens of a question about a thought.

        What the context has no room for: of an overlong query (more than a quarter of the context) the
        middle, then of the thought its beginning, in strides of half of its room, so that what is cached
        stays of use and the newest text is always there. `LEFT_OUT` stands in its place.
        """
        query, of_query = self._clipped(_SURROGATE.sub("\ufffd", query))
        thought = _SURROGATE.sub("\ufffd", thought)
        if self._strips:
            thought = thought.rstrip()
        skipped = _beyond(thought, self.limit)
        thought = thought[skipped:]
        if not skipped:
            tokens = self._content(query, thought, growing)
            if len(tokens) + reserve <= self.limit:
                return Context(tokens, 0, of_query)
        room = self._room(query, reserve)
        offsets = self._encoded(thought).offsets
        stride = max(1, room // 2)
        dropped = max(0, -(-(len(offsets) - room) // stride) * stride)
        while True:
            begin = offsets[dropped][0] if dropped < len(offsets) else len(thought)
            tokens = self._content(query, LEFT_OUT + thought[begin:], growing)
            if len(tokens) + reserve <= self.limit or begin == len(thought):
                return Context(tokens, skipped + begin, of_query)
            dropped += stride

    def _encoded(self, text: str) -> Encoding:
        # By itself, `encode` would keep the interpreter's lock, and with it every event loop, for as long.
        return self._text.encode_batch([text], add_special_tokens=False)[0]

    def _content(self, query: str, thought: str, growing: GrowingText) -> list[int]:
        content = user_message(query, thought)
        content = self._glue + (content.strip() if self._strips else content)
        tokens = growing.tokens(content, self.encode) if self._has_borders else self.encode(content)
        return self.head + list(tokens)

    def _room(self, query: str, reserve: int) -> int:
        """How many tokens of a thought fit in."""
        around = self.encode(self._glue + user_message(query, LEFT_OUT))
        return self.limit - reserve - len(self.head) - len(around)

    def _clipped(self, query: str) -> tuple[str, int]:
        """What there is room for of a query, and how many characters were left out."""
        if 4 * len(query) <= self._query_limit:  # a character has at most four tokens
            return query, 0
        offsets = self._encoded(query).offsets
        if len(offsets) <= self._query_limit:
            return query, 0
        half = self._query_limit // 2
        begin, end = offsets[half][0], offsets[-half][0]
        return query[:begin] + " " + LEFT_OUT + query[end:], end - begin


def _beyond(thought: str, limit: int) -> int:
    """How many characters at the beginning are not even looked at, as far more are behind them than ever
    had room in so many tokens."""
    stride = 8 * limit
    return max(0, -(-(len(thought) - 2 * stride) // stride) * stride)


def _template(tokenizer: Any, prompt: str) -> tuple[str, str, bool]:
    """What the chat template writes before and after the user's message, and whether it strips that."""
    messages = [
        {"role": "system", "content": prompt},
        {"role": "user", "content": f" {_STAND_IN} "},
    ]
    try:
        rendered = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, date_string=DATE
        )
    except Exception as error:
        raise ConfigError(f"the checkpoint's chat template cannot be used: {error}") from error
    before, _, after = rendered.rpartition(_STAND_IN)
    if before.endswith(" ") and after.startswith(" "):
        return before[:-1], after[1:], False
    return before, after, True


@dataclass(frozen=True, slots=True)
class Labels:
    """How the labels are told apart: behind `probe` all tokens of "0.5" but its last have been read.

    `path` are the tokens of "0.5" behind the one beginning that all labels share; the model's guesses at
    each of them are needed, `len(path)` in all. A label is a prefix of the path ("0"), or leaves it with
    its last token ("1"): `leaves` has where, and with which token (None: by ending).
    """

    probe: list[int]
    path: list[int]
    leaves: dict[RiskLevel, tuple[int, int | None]]

    @classmethod
    def of(cls, trusted: Tokenizer, after: str) -> "Labels":
        written = {
            level: trusted.encode(after + JUDGMENT + label, add_special_tokens=False).ids
            for level, label in LABELS.items()
        }
        longest = written[RiskLevel.POTENTIAL]
        shared = min(common_prefix(longest, tokens) for tokens in written.values())
        path = longest[shared:]
        leaves: dict[RiskLevel, tuple[int, int | None]] = {}
        for level, tokens in written.items():
            at = common_prefix(longest, tokens) - shared
            rest = tokens[shared + at :]
            if level is RiskLevel.POTENTIAL:
                at, rest = len(path) - 1, path[-1:]
            if len(rest) > 1:
                raise ConfigError(
                    f"the tokenizer writes the label {LABELS[level]!r} in a way that cannot be scored"
                )
            leaves[level] = at, rest[0] if rest else None
        return cls(probe=longest[:-1], path=path, leaves=leaves)
