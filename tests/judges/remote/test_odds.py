"""The odds of whole label strings, from what servers list."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shieldguard import RiskLevel, UnparsedVerdict
from shieldguard.judges.remote.odds import LONGEST, Guess, Odds
from shieldguard.judges.remote.replies import guesses_of
from tests.judges.remote.rig import completion

SHARES = st.floats(1e-9, 1 - 1e-9)


def guess(odds: dict[str, float]) -> Guess:
    return Guess(
        max(odds, key=lambda token: odds[token]), {token: math.log(p) for token, p in odds.items() if p}
    )


def asked(model: dict[str, dict[str, float]]) -> tuple[Odds, list[str]]:
    """The odds of a model that writes what it likes best, and how often and where it was asked."""
    odds, requests = Odds(), []
    while (begun := odds.missing()) is not None:
        requests.append(begun)
        written, guesses = begun, []
        for _ in range(len(LONGEST) - len(begun)):
            guesses.append(guess(model.get(written, {"\n": 0.9, "0": 0.05, "1": 0.05})))
            written += guesses[-1].wrote
        odds.take(begun, guesses)
    return odds, requests


@given(zero=SHARES, point=SHARES, five=SHARES)
def test_they_are_those_of_the_whole_strings(zero: float, point: float, five: float) -> None:
    model = {
        "": {"0": zero, "1": 1 - zero},
        "0": {".": point, "\n": 1 - point},
        "0.": {"5": five, "7": 1 - five},
    }
    odds, requests = asked(model)
    scores = [zero * (1 - point), zero * point * five, 1 - zero]
    found = odds.probabilities()
    for level, score in zip(RiskLevel, scores, strict=True):
        assert found[level] == pytest.approx(score / sum(scores), abs=3e-5)
    assert requests[0] == ""
    assert len(set(requests)) == len(requests) <= 3


@pytest.mark.parametrize(
    ("zero", "point", "requests"),
    [(0.9, 0.9, 1), (0.9, 0.1, 2), (0.1, 0.9, 2), (0.1, 0.1, 3), (1 - 1e-7, 1e-7, 1), (1e-7, 0.9, 1)],
)
def test_a_server_is_asked_no_oftener_than_it_takes(zero: float, point: float, requests: int) -> None:
    model = {
        "": {"0": zero, "1": 1 - zero},
        "0": {".": point, "\n": 1 - point},
        "0.": {"5": 1.0},
    }
    assert len(asked(model)[1]) == requests


@pytest.mark.parametrize(
    "listed", [{"I": 0.6, "The": 0.4}, {"0": 0.5, "I": 0.3, "The": 0.2}, {"1": 0.5, "I": 0.3}]
)
def test_a_model_that_expects_something_else_gives_no_verdict(listed: dict[str, float]) -> None:
    odds = Odds()
    odds.take("", [guess(listed)])
    with pytest.raises(UnparsedVerdict, match="top_logprobs"):
        odds.missing()


def test_what_cannot_matter_may_be_missing_from_the_list() -> None:
    odds = Odds()
    odds.take("", [guess({"1": 0.9999, "I": 0.00001})])
    assert odds.missing() is None
    assert odds.probabilities()[RiskLevel.HARMFUL] == 1


def test_both_kinds_of_servers_tell_the_same() -> None:
    tokens = ({"0": 0.7, "1": 0.3}, {".": 0.8, "\n": 0.2}, {"5": 1.0})
    by_column, by_token = (
        guesses_of(b"".join(completion(*tokens, kind=kind).pieces)) for kind in ("columns", "tokens")
    )
    assert by_column == by_token
    assert by_column is not None
    assert [guess.wrote for guess in by_column] == ["0", ".", "5"]


BROKEN = [
    b"",
    b"<html>",
    b"[]",
    b'{"choices": []}',
    b'{"choices": [{"logprobs": {"tokens": ["0"], "token_logprobs": []}}]}',
    b'{"choices": [{"logprobs": {"tokens": ["0"], "token_logprobs": [NaN]}}]}',
    b'{"choices": [{"logprobs": {"tokens": ["0"], "token_logprobs": [0.7]}}]}',
    b'{"choices": [{"logprobs": {"content": [{"token": 3}]}}]}',
    "\ud83d".encode("utf-8", "surrogatepass"),
]


@pytest.mark.parametrize("body", BROKEN)
def test_a_reply_of_another_shape_is_no_verdict(body: bytes) -> None:
    with pytest.raises(UnparsedVerdict):
        guesses_of(body)


def test_no_log_probabilities_are_told_from_a_broken_reply() -> None:
    for choice in ({}, {"logprobs": None}):
        assert guesses_of(json.dumps({"choices": [choice]}).encode()) is None


@given(st.data())
def test_no_shape_of_a_reply_raises_anything_else(data: st.DataObject) -> None:
    values = st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["choices", "logprobs", "tokens", "token_logprobs", "top_logprobs", "content", "token"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
    body = json.dumps({"choices": [{"logprobs": data.draw(values)}]}).encode()
    try:
        guesses_of(body)
    except UnparsedVerdict:
        pass
