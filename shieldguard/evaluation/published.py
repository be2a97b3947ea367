"""What others have published of guards that judge a stream, to stand beside what is measured."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Figures in percent, as they were published; empty for those that were not. `in_sentence`, `sentences`
    (within two) and `tokens` (within 128): of harmful streams; in brackets with premature aborts as misses.
    `alarms`: of harmless ones. `never`: of the harmful ones."""

    name: str
    f1: str = ""
    in_sentence: str = ""
    sentences: str = ""
    tokens: str = ""
    never: str = ""
    alarms: str = ""


PUBLISHED = (
    Published(
        name="Qwen3Guard-Stream, on thinking",
        f1="81.6–85.4",
        in_sentence="4.7–21.6",
        tokens="64.7–78.4 (49.6–60.3)",
        never="16–22",
    ),
    Published(name="SentGuard", sentences="90.5", alarms="7.41"),
    Published(name="SCM, on answers, after 18 % of the tokens", f1="95.5"),
    Published(name="Constitutional Classifiers++, of all traffic in production", alarms="0.05"),
)
NOTE = (
    "The others' figures were published by their authors, on data and labels of their own: they say what is "
    "to be had, not which guard is better. SentGuard adds 36 ms, against 576 ms for blocking."
)
