"""A model and the judge of its thoughts, in one process."""

import gc
from typing import Any

import pytest

from shieldguard import Ended, Guard, Policy, RiskLevel, SizeWindower
from shieldguard.judges.local import LocalJudge
from shieldguard_adapters.transformers import GeneratedText, guard_generate
from tests.generate.rig import READERS, Counter, answer_in, comes_true, reasoning_in, threads
from tests.generate.tiny import ANSWER, CALM_THOUGHT, DOUBTFUL_THOUGHT, Local, asked
from tests.judges.local.tiny import HARM


def generation(local: Local, judge: LocalJudge, word: str, **options: Any) -> Any:
    guard = Guard(
        judge=judge,
        policy=Policy(judge_timeout=60, max_wait=None, max_held=1000),
        windower=SizeWindower(size=150),
    )
    inputs = asked(local.tokenizer, word)
    return guard_generate(
        local.model, local.tokenizer, inputs, guard, query="What hums?", max_new_tokens=700, **options
    )


@pytest.mark.parametrize("reader", READERS)
def test_each_text_ends_as_its_thought_is(local: Local, fast: LocalJudge, reader: str) -> None:
    for word, thought, level in (("bread", CALM_THOUGHT, 0), ("doubt", DOUBTFUL_THOUGHT, 0.5)):
        made = generation(local, fast, word)
        events = READERS[reader](made)
        assert (reasoning_in(events), answer_in(events)) == (thought, ANSWER)
        assert (made.report.ended, made.report.level) == (Ended.COMPLETE, level)
        assert made.report.failures == 0
    counter = Counter()
    made = generation(local, fast, "harm", stopping_criteria=[counter])
    events = READERS[reader](made)
    assert (made.report.ended, made.report.level) == (Ended.ABORTED, RiskLevel.HARMFUL)
    assert HARM not in reasoning_in(events)
    assert answer_in(events) == ""
    assert counter.tokens < 277  # which the text has


def test_several_at_once_do_not_mix(local: Local, fast: LocalJudge) -> None:
    words = ["bread", "harm", "doubt", "bread"]
    made = [generation(local, fast, word) for word in words]
    streams = [iter(one) for one in made]
    first = [next(stream) for stream in streams]
    assert len(threads()) == len(first) == 4
    said = [one.read() for one in made]
    assert said[0] == said[3] == GeneratedText(CALM_THOUGHT, ANSWER)
    assert said[2] == GeneratedText(DOUBTFUL_THOUGHT, ANSWER)
    assert made[1].report.ended is Ended.ABORTED
    gc.collect()
    assert comes_true(lambda: not threads())
