"""The query that goes to the judge: the last user turn, or the chat within a bound."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shieldguard import Message, history, last_user_turn

CHAT = [
    Message("system", "Be kind."),
    Message("user", "Hello"),
    Message("assistant", "Hi!"),
    Message("user", "How do I bake?"),
]
WHOLE = "system: Be kind.\nuser: Hello\nassistant: Hi!\nuser: How do I bake?"

turns = st.lists(st.builds(Message, st.just("user"), st.text(alphabet="ab 词\n", max_size=12)), max_size=6)


# -- the last user turn ------------------------------------------------------------------------------


def test_the_query_is_what_the_user_said_last() -> None:
    assert last_user_turn(CHAT) == "How do I bake?"


def test_what_others_said_after_it_does_not_count() -> None:
    assert last_user_turn([*CHAT, Message("assistant", "Mix."), Message("tool", "{}")]) == "How do I bake?"


@pytest.mark.parametrize("messages", [[], [Message("system", "Be kind.")]])
def test_without_a_user_turn_there_is_no_query(messages: list[Message]) -> None:
    assert last_user_turn(messages) == ""


# -- the history -------------------------------------------------------------------------------------


def test_a_history_has_each_message_under_its_role_in_order() -> None:
    assert history()(CHAT) == WHOLE


def test_a_history_of_nothing_is_empty() -> None:
    assert history()([]) == ""


def test_a_history_that_just_fits_is_whole() -> None:
    assert history(len(WHOLE))(CHAT) == WHOLE


def test_a_history_too_long_by_a_character_loses_its_oldest_message() -> None:
    assert history(len(WHOLE) - 1)(CHAT) == "…\nuser: Hello\nassistant: Hi!\nuser: How do I bake?"


def test_the_newest_messages_are_kept() -> None:
    assert history(37)(CHAT) == "…\nassistant: Hi!\nuser: How do I bake?"
    assert history(36)(CHAT) == "…\nuser: How do I bake?"


def test_the_end_of_a_newest_message_is_kept_where_all_of_it_is_too_long() -> None:
    assert history(12)(CHAT) == "user: …bake?"


def test_a_chat_of_thousands_of_characters_is_bounded_by_default() -> None:
    query = history()([Message("user", "x" * 3000)] * 3)
    assert 3000 < len(query) <= 4000


def test_history_that_only_the_server_holds_is_said_to_be_unseen() -> None:
    query = history()([Message("history", "resp_123", unseen=True), Message("user", "And then?")])
    assert query == "history: (history held by the server, not seen)\nuser: And then?"


@given(turns, st.integers(9, 60))
@settings(deadline=None)
def test_all_that_fits_is_kept(messages: list[Message], bound: int) -> None:
    rendered = [f"user: {message.text}" for message in messages]
    query = history(bound)(messages)
    if len("\n".join(rendered)) <= bound:
        assert query == "\n".join(rendered)
    else:
        assert "…" in query
        assert query.endswith(messages[-1].text[-1:])


@given(turns, st.integers(7, 60))
@settings(deadline=None)
@example([Message("user", "x" * 100)], 7)
@example([Message("user", "aa"), Message("user", "x" * 7)], 13)
def test_a_history_is_never_longer_than_its_bound(messages: list[Message], bound: int) -> None:
    assert len(history(bound)(messages)) <= bound
