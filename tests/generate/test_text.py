"""Tokens one by one say what all of them say."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shieldguard import ThinkSplitter
from shieldguard_adapters.transformers import TokenText
from tests.generate.tiny import SPECIAL, make_tokenizer

MARKERS = ThinkSplitter().markers
SHOWN = {"<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


def pieces(tokenizer: Any, tokens: list[int]) -> list[str]:
    text = TokenText(tokenizer, MARKERS)
    return [*map(text.add, tokens), text.rest()]


words = st.sampled_from(["kettle ", "größer", "🥖", "👩‍🍳", "水", "<think>", " ", "\n", *SPECIAL])


@given(st.lists(words | st.text(max_size=5), max_size=12))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_pieces_are_the_text_without_hidden_tokens(tokenizer: Any, parts: list[str]) -> None:
    text = "".join(parts)
    tokens = tokenizer.encode(text, add_special_tokens=False)
    hidden = tokenizer.convert_tokens_to_ids([token for token in SPECIAL if token not in SHOWN])
    shown = [token for token in tokens if token not in hidden]
    assert "".join(pieces(tokenizer, tokens)) == tokenizer.decode(shown)


@given(st.lists(st.integers(0, 320), max_size=40))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_model_writes_no_piece_is_lost(tokenizer: Any, tokens: list[int]) -> None:
    text = TokenText(tokenizer, MARKERS)
    said = "".join([*map(text.add, tokens), text.rest()])
    hidden = tokenizer.convert_tokens_to_ids([token for token in SPECIAL if token not in SHOWN])
    whole = tokenizer.decode([token for token in tokens if token not in hidden])
    # Where bytes make no characters, the two may differ in how many marks stand for them.
    assert said.replace("\ufffd", "") == whole.replace("\ufffd", "")


def test_a_character_of_several_tokens_comes_with_the_last_of_them(tokenizer: Any) -> None:
    tokens = tokenizer.encode("a🥖b", add_special_tokens=False)
    assert pieces(tokenizer, tokens) == ["a", "", "", "", "🥖", "b", ""]


def test_bytes_that_make_no_character_do_not_wait_for_ever(tokenizer: Any) -> None:
    half = tokenizer.encode("🥖", add_special_tokens=False)[0]
    text = TokenText(tokenizer, MARKERS)
    assert any(text.add(half) for _ in range(8))


def test_half_a_character_comes_at_the_end(tokenizer: Any) -> None:
    half = tokenizer.encode("🥖", add_special_tokens=False)[:2]
    assert pieces(tokenizer, half) == ["", "", "\ufffd"]


def test_mistrals_own_tokenizer_does_not_name_its_added_tokens() -> None:
    class Own:
        all_special_ids = (0, 1)

        @property
        def added_tokens_decoder(self) -> Any:
            raise NotImplementedError

        def decode(self, tokens: list[int], **options: Any) -> str:
            return "".join(["<s>", "[THINK]", "a"][token] for token in tokens)

    assert pieces(Own(), [0, 1, 2]) == ["", "[THINK]", "a", ""]
