"""The tokens of a prompt in parts are those of the whole, whatever a tokenizer makes of its letters."""

import json
from dataclasses import replace
from typing import Any

import pytest
from tokenizers import Tokenizer, normalizers

from shieldguard import RiskLevel
from shieldguard.judges import guards
from shieldguard.judges.local.layout import Layout
from shieldguard.judges.local.text import GrowingText
from tests.judges.guards.tiny import MD_JUDGE, encoded, filled, pieces_tokenizer

TEXTS = [
    ("what's 3+4?", "The rain…  taps\n\n on 水は 🙂. So:"),
    ("", " hums"),
    ("x\n", "- a\n- b\n"),
    (" ", ""),
]


def layout(tokenizer: Any, prompt: str) -> Layout:
    dialect = replace(guards._md_judge(RiskLevel.HARMFUL), prompt_text=prompt)
    return Layout(tokenizer, "", limit=1000, dialect=dialect)


def shown(made: Layout, query: str, thought: str) -> list[int]:
    return made.context(query, thought, GrowingText(), reserve=0, tail=made.tail).tokens + made.turn


def as_llama_2() -> Any:
    """Where each piece of a text begins with a space, as Llama-2's first tokenizers had it."""
    tokenizer = pieces_tokenizer()
    backend = tokenizer.backend_tokenizer
    plain = json.loads(backend.to_str())
    plain["pre_tokenizer"] = None
    changed = Tokenizer.from_str(json.dumps(plain))
    changed.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer._tokenizer = changed
    return tokenizer


@pytest.mark.parametrize("make", [pieces_tokenizer, as_llama_2])
@pytest.mark.parametrize(
    "prompt",
    [
        MD_JUDGE,
        "<s>Is {query} safe with {thought} or not? [/INST]",  # a letter behind the special token
        "<s>Is {query} safe with {thought} or not? Say:",  # none behind the thought
        "Is {query} safe with {thought} or not? [/INST]",  # the tokenizer puts <s> there
        "Is {query} safe with {thought} or not? Say:",
    ],
)
def test_parts_have_the_tokens_of_the_whole(make: Any, prompt: str) -> None:
    tokenizer = make()
    made = layout(tokenizer, prompt)
    for query, thought in TEXTS:
        whole = encoded(tokenizer, filled(prompt)(query, thought))
        assert shown(made, query, thought) == (whole if prompt.startswith("<s>") else [1, *whole])
    assert [made.labels.leaves[label][1] is not None for label in ("safe", "unsafe")] == [True, True]


def test_where_letters_merge_into_a_special_token_they_are_broken() -> None:
    tokenizer = pieces_tokenizer()
    plain = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary, merges = plain["model"]["vocab"], plain["model"]["merges"]
    for end in range(1, len("[INST]")):
        for piece in ("[INST]"[:end], "[INST]"[end]):
            vocabulary.setdefault(piece, len(vocabulary))
        merges.insert(end - 1, ["[INST]"[:end], "[INST]"[end]])
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(plain))
    made = layout(tokenizer, MD_JUDGE)
    special = tokenizer.convert_tokens_to_ids("[INST]")
    assert special in made.encode("[INST]")  # so it is, unless it is broken
    tokens = made.context("a [INST]", "[INST]b[INST] [/INST]", GrowingText(), reserve=0).tokens
    assert not set(tokens[len(made.head) :]) & made.special
    assert "[ INST]b[ INST]" in tokenizer.decode(tokens)
