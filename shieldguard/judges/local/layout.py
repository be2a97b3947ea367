"""From a query and a thought to the tokens that the model reads.

    head                           content                          tail
    <system prompt> <user header>  "Query: … \\nThought: …"          <end of turn> <assistant header> …

Head and tail come from the chat template, or a prompt file, and never change. The content is text from
strangers: in it no special token is ever parsed, whatever it spells.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tokenizers import AddedToken, Encoding, Tokenizer

from shieldguard.errors import ConfigError
from shieldguard.judges.contract import LEFT_OUT
from shieldguard.judges.dialects import REASONING_SHIELD, Dialect
from shieldguard.judges.local.frame import Frame
from shieldguard.judges.local.rows import common_prefix
from shieldguard.judges.local.text import GrowingText, last_border

_SURROGATE = re.compile("[\ud800-\udfff]")
# Stands before a text that follows a special token, for tokenizers to which the beginning is another thing.
_MARK = "\uf8ff\uf8fe\uf8ff"
_SAMPLE = ("ab cd ef", "gh ij. Kl")


@dataclass(frozen=True, slots=True)
class Context:
    """The tokens up to the end of the thought, or of what is tokenised with it. `of_thought`, `of_query`:
    characters that there was no room for, at the thought's beginning and in the query's middle."""

    tokens: list[int]
    of_thought: int
    of_query: int


class Tail(NamedTuple):
    """What the model reads behind the thought: `text` is tokenised with it, as no special token keeps them
    apart, without its last `less` tokens; then come `tokens`."""

    text: str
    less: int
    tokens: list[int]


NO_TAIL = Tail("", 0, [])


class Layout:
    """`limit`: how many tokens the model may be shown, what it writes included.

    Behind `tail` the model writes its reply; behind `labels.tail` it is at its label.

    Raises `ConfigError` for a chat template or a tokenizer that cannot keep what strangers write apart from
    what it has to say itself, and for a limit that leaves no room for a thought.
    """

    def __init__(
        self, tokenizer: Any, prompt: str, *, limit: int, dialect: Dialect = REASONING_SHIELD
    ) -> None:
        trusted = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        trusted.no_padding()
        trusted.no_truncation()
        self._text = Tokenizer.from_str(trusted.to_str())
        self._text.encode_special_tokens = True
        self._marked = Tokenizer.from_str(self._text.to_str())
        self._marked.encode_special_tokens = True
        self._marked.add_tokens([AddedToken(_MARK, normalized=False)])
        self.special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        pieces = trusted.pre_tokenizer.pre_tokenize_str("ab cd") if trusted.pre_tokenizer else []
        self._has_borders = 2 in [begin for _, (begin, _) in pieces]
        self._frame = frame = Frame.of(tokenizer, dialect, prompt)
        head = trusted.encode(frame.before, add_special_tokens=False)
        last = max((at for at, token in enumerate(head.ids) if token in self.special), default=-1)
        # What stands between the last special token and the query is tokenised with the content.
        self._glue = frame.before[head.offsets[last][1] :] if last >= 0 else frame.before
        begin = [] if frame.begin is None else [frame.begin]
        self.head = begin + head.ids[: last + 1]
        self._follows = last >= 0
        if not self.head:
            raise ConfigError(
                f"the text that the model is shown begins {frame.before[:50]!r}, with no special tokens; a "
                "begin-of-text token should be there"
            )
        bos = tokenizer.bos_token_id
        if bos is not None and self.head.count(bos) != 1:
            raise ConfigError(
                f"the chat template writes {self.head.count(bos)} begin-of-text tokens, not one"
            )
        self._forgeries = self._forgeable(tokenizer)
        self.prefix = self.head + self.encode(self._glue[: last_border(self._glue)])
        self.limit = limit
        self._query_limit = limit // 4
        self.tail = self._tail(trusted, frame.after)
        if dialect.prompt_text is None and not self.turn:
            raise ConfigError(
                "the checkpoint's chat template sets the message between no special tokens, "
                f"as Llama-3's does; it ends with {frame.after!r}"
            )
        self._check_parts(trusted)
        self._labels = self._labels_of(trusted, dialect) if dialect.labels else None
        self.check_reserve(len(self._labels.probe if self._labels else self.turn))

    @property
    def turn(self) -> list[int]:
        """The tokens behind the thought, from the first special one on."""
        return self.tail.tokens

    @property
    def labels(self) -> "Labels":
        assert self._labels is not None
        return self._labels

    def check_reserve(self, reserve: int) -> None:
        """Raise `ConfigError` where `reserve` tokens leave no room for a thought about a long query."""
        if self._room("", reserve, self.tail) - self._query_limit < 64:
            raise ConfigError(
                f"a context of {self.limit!r} tokens leaves no room for a thought beside {len(self.head)} "
                f"tokens of prompt, {self._query_limit} for the query and {reserve} for the reply; take more"
            )

    def context(
        self, query: str, thought: str, growing: GrowingText, *, reserve: int, tail: Tail = NO_TAIL
    ) -> Context:
        """The tokens of a question about a thought, those of the tail's text among them.

        What the context has no room for, with `reserve` tokens behind them: of an overlong query (more than
        a quarter of the context) the middle, then of the thought its beginning, in strides of half of its
        room, so that what is cached stays of use and the newest text is always there. `LEFT_OUT` stands in
        its place.
        """
        query, of_query = self._clipped(self._harmless(query))
        thought = self._harmless(thought)
        if self._frame.strips:
            thought = thought.rstrip()
        skipped = _beyond(thought, self.limit)
        thought = thought[skipped:]
        if not skipped:
            tokens = self._content(query, thought, growing, tail)
            if len(tokens) + reserve <= self.limit:
                return Context(tokens, 0, of_query)
        room = self._room(query, reserve, tail)
        offsets = self._encoded(thought).offsets
        stride = max(1, room // 2)
        dropped = max(0, -(-(len(offsets) - room) // stride) * stride)
        while True:
            begin = offsets[dropped][0] if dropped < len(offsets) else len(thought)
            tokens = self._content(query, LEFT_OUT + thought[begin:], growing, tail)
            if len(tokens) + reserve <= self.limit or begin == len(thought):
                return Context(tokens, skipped + begin, of_query)
            dropped += stride

    def encode(self, text: str) -> list[int]:
        """The tokens of text from strangers."""
        if self._has_borders or not self._follows:
            return list(self._encoded(text).ids)
        # To other tokenizers the beginning of a text is another thing than what follows a special token.
        text = _MARK + text.replace(_MARK, "\ufffd")
        return self._marked.encode_batch([text], add_special_tokens=False)[0].ids[1:]

    def _forgeable(self, tokenizer: Any) -> re.Pattern[str] | None:
        """What must be broken in the text of strangers. Most tokenizers can be told to parse no special token
        in it; but some have merges that lead from its letters to one."""
        spelt = [tokenizer.added_tokens_decoder[number].content for number in self.special]
        if not self.special & set(self.encode("".join(spelt))):
            return None
        pattern = re.compile("|".join(f"{re.escape(one[0])}(?={re.escape(one[1:])})" for one in spelt))
        if self.special & set(self.encode(pattern.sub(r"\g<0> ", "".join(spelt)))):
            raise ConfigError("the tokenizer parses special tokens in plain text; a thought could forge them")
        return pattern

    def _harmless(self, text: str) -> str:
        text = _SURROGATE.sub("\ufffd", text)
        return text if self._forgeries is None else self._forgeries.sub(r"\g<0> ", text)

    def _encoded(self, text: str) -> Encoding:
        # By itself, `encode` would keep the interpreter's lock, and with it every event loop, for as long.
        return self._text.encode_batch([text], add_special_tokens=False)[0]

    def _content(self, query: str, thought: str, growing: GrowingText, tail: Tail) -> list[int]:
        content = self._glue + self._frame.content(query, thought)
        if self._has_borders:
            tokens = growing.tokens(content, self.encode, tail.text)
        else:
            tokens = self.encode(content + tail.text)
        return self.head + list(tokens[: len(tokens) - tail.less])

    def _room(self, query: str, reserve: int, tail: Tail) -> int:
        """How many tokens of a thought fit in."""
        around = self.encode(self._glue + self._frame.content(query, LEFT_OUT) + tail.text)
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

    def _tail(self, trusted: Tokenizer, text: str) -> Tail:
        written = trusted.encode(text, add_special_tokens=False)
        for token, (begin, _) in zip(written.ids, written.offsets, strict=True):
            if token in self.special:
                return Tail(text[:begin], 0, trusted.encode(text[begin:], add_special_tokens=False).ids)
        return Tail(text, 0, [])

    def _check_parts(self, trusted: Tokenizer) -> None:
        """Parts have to give the tokens that the whole has, as the model was trained on."""
        sample = self._frame.content(*_SAMPLE)
        parts = self._content(*_SAMPLE, GrowingText(), self.tail) + self.turn
        frame = self._frame
        whole = trusted.encode(frame.before + sample + frame.after, add_special_tokens=False).ids
        if parts != whole and parts != [frame.begin, *whole]:
            raise ConfigError(
                "the tokenizer writes a conversation in parts otherwise than whole; are there special tokens "
                f"between query and thought? The text is {frame.before[-200:] + sample!r}"
            )

    def _labels_of(self, trusted: Tokenizer, dialect: Dialect) -> "Labels":
        after = self._frame.after
        lead = after + ("" if after[-1:].isspace() else dialect.gap) + dialect.lead
        tails = {label: self._tail(trusted, lead + label) for label in dialect.labels}
        written = {
            label: tail.tokens or self._content(*_SAMPLE, GrowingText(), tail)
            for label, tail in tails.items()
        }
        longest = max(written, key=lambda label: len(written[label]))
        if self.turn:
            tail = Tail(tails[longest].text, 0, written[longest][:-1])
        else:
            tail = Tail(tails[longest].text, 1, [])
        return Labels.of(written, longest, tail)


def _beyond(thought: str, limit: int) -> int:
    """How many characters at the beginning are not even looked at, as far more are behind them than ever
    had room in so many tokens."""
    stride = 8 * limit
    return max(0, -(-(len(thought) - 2 * stride) // stride) * stride)


@dataclass(frozen=True, slots=True)
class Labels:
    """How the labels are told apart. Behind `tail` all tokens of the longest label but its last were read.

    `path` are the tokens of the longest label behind the one beginning that all labels share; the model's
    guesses at each of them are needed, `len(path)` in all. Another label is a prefix of the path ("0" of
    "0.5"), or leaves it with a token that no other label has there: `leaves` has where, and with which
    (None: by ending). What comes behind that token tells nothing, and is not asked for.
    """

    tail: Tail
    path: list[int]
    leaves: dict[str, tuple[int, int | None]]

    @property
    def probe(self) -> list[int]:
        return self.tail.tokens

    @classmethod
    def of(cls, written: Mapping[str, list[int]], longest: str, tail: Tail) -> "Labels":
        """`written`: the tokens of each label, with the same ones before them."""
        whole = written[longest]
        shared = min(common_prefix(whole, tokens) for tokens in written.values())
        path = whole[shared:]
        leaves: dict[str, tuple[int, int | None]] = {}
        for label, tokens in written.items():
            at = common_prefix(whole, tokens)
            leaves[label] = at - shared, tokens[at] if at < len(tokens) else None
        leaves[longest] = len(path) - 1, path[-1]
        if len(set(leaves.values())) < len(leaves):
            raise ConfigError(
                f"the tokenizer writes the labels {list(written)!r} in a way that cannot be told apart"
            )
        return cls(tail=tail, path=path, leaves=leaves)
