"""What the model writes, as it was seen in the wild, and what is made of it."""

import pytest

from shieldguard import RiskCategory, RiskLevel, UnparsedVerdict
from shieldguard.judges.contract import analysis_of, category_of, is_final, parse, user_message

SPELLINGS = {
    '"Analysis": fine\n"Judgment": 0': 0,
    '"Judgment": 0.5': 0.5,
    '"Judgment": 1': 1,
    "Judgment: 1": 1,
    "judgment : 1": 1,
    "Judgement: 0": 0,
    '"Judgment": [1]': 1,
    "**Judgment**: 1": 1,
    "**Judgment:** 0.5": 0.5,
    '"Judgment"：1': 1,
    '"Judgment": "0.5"': 0.5,
    "Judgment: 1.0": 1,
    "Judgment: 0.0": 0,
    "The judgment: 1.": 1,
    '{"Judgment": "1"}': 1,
    '"Judgment":\n1': 1,
    # an echo of the choice is none, the last judgment counts
    '"Judgment": [0/0.5/1]\n"Judgment": 0.5': 0.5,
    '"Judgment": 1\n"Judgment": [0/0.5/1]': 1,
    'It says "Judgment": 0, but no.\n"Judgment": 1': 1,
}

NO_VERDICT = [
    "",
    "The thought is fine.",
    "[0/0.5/1]",
    '"Judgment": [0/0.5/1]',
    '"Judgment": 0 / 0.5 / 1',
    '"Judgment": 0, 0.5 or 1',
    '"Judgment": ',
    '"Judgment": safe',
    '"Judgment": 2',
    '"Judgment": -1',
    '"Judgment": 0.75',
    '"Judgment": 1.0.0',
    '"Judgment": 10',
    '"Judgment": 0\n"Judgment": 7',
    "misjudgments: 1",
]


@pytest.mark.parametrize(("reply", "level"), SPELLINGS.items())
def test_a_judgment_is_read_however_it_is_spelt(reply: str, level: float) -> None:
    assert parse(reply) is RiskLevel(level)


@pytest.mark.parametrize("reply", NO_VERDICT)
def test_what_is_no_judgment_is_never_taken_for_one(reply: str) -> None:
    with pytest.raises(UnparsedVerdict):
        parse(reply)


@pytest.mark.parametrize(
    ("reply", "final"),
    [
        ('"Analysis": bad\n"Judgment": 1\n\n', True),
        ('"Analysis": bad\n\n**Judgment**: 0.5\n\n', True),
        ('"Analysis": bad\n"Judgment": 1', False),  # 1.0 could follow
        ('"Analysis": bad\n"Judgment": 0\n', False),
        ('"Analysis": it claims "Judgment": 0\n\n', False),
        ('"Analysis": bad\n"Judgment": [0/0.5/1]\n\n', False),
        ('"Judgment": 0\n\nthat is what it forged.\n\n', False),
    ],
)
def test_a_reply_is_final_once_its_judgment_stands_alone(reply: str, final: bool) -> None:
    assert is_final(reply) is final


@pytest.mark.parametrize(
    ("analysis", "category"),
    [
        ("This falls under Cybersecurity & Malware Threats.", RiskCategory.CYBERSECURITY),
        ("It belongs to violence and physical harm, not Political Risks; Violence & Physical Harm it is.",
         RiskCategory.VIOLENCE),
        ("A child related harm.", RiskCategory.CHILD),
        ("It tells how to write ransomware.", RiskCategory.CYBERSECURITY),
        ("It is bad.", None),
    ],
)  # fmt: skip
def test_the_category_is_what_the_prose_speaks_of(analysis: str, category: RiskCategory | None) -> None:
    assert category_of(analysis, RiskLevel.HARMFUL) is category
    assert category_of(analysis, RiskLevel.SAFE) is RiskCategory.SAFE


def test_the_analysis_is_the_prose_alone() -> None:
    assert analysis_of('"Analysis": It hints at harm.\n"Judgment": 0.5') == "It hints at harm."
    assert analysis_of("**Analysis**: It is fine.\n**Judgment**: 0") == "It is fine."
    assert analysis_of("No form at all.") == "No form at all."


def test_the_message_is_the_one_the_model_was_trained_on() -> None:
    assert user_message("Why?", "So.") == "Query: Why?\nThought: So."
