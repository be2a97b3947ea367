"""Judges for the command's `--judge`: what they answer depends on a word alone."""

from shieldguard import JudgeError
from shieldguard.testing import InstantScriptedJudge


def judge() -> InstantScriptedJudge:
    return InstantScriptedJudge({"gift card": 1.0, "slips": 0.5})


def failing() -> InstantScriptedJudge:
    return InstantScriptedJudge(lambda window: JudgeError("no verdict today"))


def not_a_judge() -> str:
    return "a judge"
