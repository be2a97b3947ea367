"""What differs between models that rate a thought: how they are asked, and what they answer.

A dialect is data. `LocalJudge` and `RemoteJudge` speak ReasoningShield's unless they are given another;
those of other guard models are in `guards`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from shieldguard.errors import ConfigError, UnparsedVerdict
from shieldguard.judges.contract import (
    JUDGMENT,
    LABELS,
    MAX_ANALYSIS_TOKENS,
    analysis_of,
    category_of,
    is_final,
    parse,
    user_message,
)
from shieldguard.verdicts import RiskCategory, RiskLevel


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How a model is asked about a thought, and how its answer is read.

    `messages(prompt, query, thought)` is the conversation that the checkpoint's chat template is given.
    `prompt_text` goes before the template: the whole text that the model reads, with `{query}` and
    `{thought}` where these belong (`read_prompt_file`).

    `labels`: the strings that compete in mode "fast", and the level that each stands for; empty where there
    is no such mode. They stand behind `lead`, and behind `gap` where the template does not end with white
    space. `least`: the share of the probability that they must have together; where they have less, the
    model would rather write something else, and there is no verdict.
    `level(reply)` reads what mode "full" has written, and raises `UnparsedVerdict` for what is no answer;
    `ends(reply)`: whether it was written whole, before the end of the turn says so; `told(reply, level)`: the
    category and the analysis in it. `written`: tokens of a reply at most.
    `classes`: the model is a classifier, with a score for each of its categories; the highest counts, and
    `yields` is the level that it stands for.
    `system_prompt`: the checkpoint has a file with its prompt, which `messages` is given; else that is "".
    """

    title: str
    messages: Callable[[str, str, str], list[dict[str, str]]]
    labels: Mapping[str, RiskLevel]
    level: Callable[[str], RiskLevel]
    lead: str = ""
    gap: str = ""
    least: float = 0.5
    ends: Callable[[str], bool] = lambda reply: False
    told: Callable[[str, RiskLevel], tuple[RiskCategory | None, str]] = lambda reply, _: (None, reply.strip())
    written: int = 64
    prompt_text: str | None = None
    classes: bool = False
    yields: RiskLevel = RiskLevel.HARMFUL
    system_prompt: bool = False


def level_of_unsafe(unsafe: float) -> RiskLevel:
    """The level that the worse answer of a two-level model stands for. Raises `ConfigError` for another than
    0.5 and 1."""
    if unsafe not in (RiskLevel.POTENTIAL, RiskLevel.HARMFUL):
        raise ConfigError(f"unsafe={unsafe!r} is no level for what a guard should act on; give 0.5 or 1")
    return RiskLevel(unsafe)


def of_levels(chances: Mapping[RiskLevel, float]) -> dict[RiskLevel, float]:
    """The probability of each level, with 0 for those that a model cannot tell."""
    return {level: chances.get(level, 0.0) for level in RiskLevel}


def first_line(labels: Mapping[str, RiskLevel], lead: str = "") -> Callable[[str], RiskLevel]:
    """Reads a reply whose first line is one of the labels, behind `lead`, and nothing else."""
    known = {_plain(lead + label): level for label, level in labels.items()}

    def read(reply: str) -> RiskLevel:
        line = reply.strip().partition("\n")[0]
        try:
            return known[_plain(line)]
        except KeyError:
            expected = " or ".join(repr((lead + label).strip()) for label in labels)
            raise UnparsedVerdict(f"the reply begins {line[:200]!r}, not with {expected}") from None

    return read


def _plain(line: str) -> str:
    return " ".join(line.split()).lower()


def _asked(prompt: str, query: str, thought: str) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": prompt},
        {"role": "user", "content": user_message(query, thought)},
    ]


REASONING_SHIELD = Dialect(
    title="ReasoningShield",
    messages=_asked,
    labels={label: level for level, label in LABELS.items()},
    lead=JUDGMENT,
    least=0.0,  # it was trained to write an analysis first, so what it expects there is not only a label
    level=parse,
    ends=is_final,
    told=lambda reply, level: (category_of(analysis_of(reply), level), analysis_of(reply)),
    written=MAX_ANALYSIS_TOKENS,
    system_prompt=True,
)
