"""generate() of a real, if tiny, model under a guard: what leaves, and when the model stops."""

import copy
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
import torch
from transformers import ProcessorMixin

from shieldguard import (
    AbortCause,
    Aborted,
    Action,
    ConfigError,
    Ended,
    Guard,
    JudgeError,
    Passthrough,
    Policy,
    Redacted,
    RiskDetected,
    Rule,
    StreamReport,
    WindowJudged,
    tag_pair,
)
from shieldguard.testing import InstantScriptedJudge, ScriptedJudge
from shieldguard_adapters.transformers import GeneratedText, GuardedGeneration, guard_generate
from tests.generate.rig import READERS, Counter, answer_in, comes_true, reasoning_in, threads
from tests.generate.tiny import (
    ANSWER,
    CALM_THOUGHT,
    DOUBTFUL_THOUGHT,
    HARMFUL_THOUGHT,
    TEXTS,
    Local,
    asked,
)
from tests.judges.local.tiny import DOUBT, HARM

JUDGES = {
    "instant": InstantScriptedJudge({HARM: 1.0, DOUBT: 0.5}),
    "in the background": ScriptedJudge({HARM: 1.0, DOUBT: 0.5}, delay=0.002),
}
NEVER = 700  # tokens, more than any of the texts has

readers = pytest.mark.parametrize("reader", READERS)


def guard(judge: Any = JUDGES["instant"], *, observers: Any = (), **policy: Any) -> Guard:
    return Guard(judge=judge, policy=Policy(max_wait=None, **policy), observers=observers)


def generation(
    local: Local, word: str, by: Guard | None = None, *, opens: bool = False, **options: Any
) -> GuardedGeneration:
    inputs = asked(local.tokenizer, word, opens=opens)
    options = {"max_new_tokens": NEVER, **options}
    return guard_generate(local.model, local.tokenizer, inputs, by or guard(), query="What hums?", **options)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert comes_true(lambda: not threads())


# -- what leaves -------------------------------------------------------------------------------------


@readers
@pytest.mark.parametrize("judge", JUDGES)
def test_a_harmless_text_leaves_whole(local: Local, reader: str, judge: str) -> None:
    made = generation(local, "bread", guard(JUDGES[judge]))
    events = READERS[reader](made)
    assert reasoning_in(events) == CALM_THOUGHT
    assert answer_in(events) == ANSWER
    assert [event.text for event in events if isinstance(event, Passthrough)] == ["<think>", "</think>"]
    assert made.report.ended is Ended.COMPLETE
    assert made.report.query == "What hums?"
    assert made.report.reasoning.judged == len(CALM_THOUGHT)
    assert made.report.answer.judged == len(ANSWER)


@readers
@pytest.mark.parametrize("judge", JUDGES)
def test_an_abort_in_mid_thought_stops_the_model(local: Local, reader: str, judge: str) -> None:
    counter = Counter()
    at_verdict: list[int] = []

    class Log:
        def window_judged(self, event: WindowJudged) -> None:
            at_verdict.append(counter.tokens)

        def stream_closed(self, report: StreamReport) -> None: ...

    made = generation(local, "harm", guard(JUDGES[judge], observers=[Log()]), stopping_criteria=[counter])
    events = READERS[reader](made)
    assert HARM not in reasoning_in(events)
    assert HARMFUL_THOUGHT.startswith(reasoning_in(events))
    assert answer_in(events) == ""
    assert isinstance(events[-1], Aborted)
    assert made.report.ended is Ended.ABORTED
    assert made.report.closed_after is not None
    with pytest.raises(RiskDetected):
        made.raise_for_risk()
    assert comes_true(lambda: not threads())
    assert counter.tokens <= at_verdict[-1] + 2  # the one that was being computed, and the one behind it
    assert counter.tokens < 200  # the text has 277


@readers
def test_a_doubtful_thought_is_redacted_and_a_safe_answer_leaves(local: Local, reader: str) -> None:
    by = guard(reasoning=Rule(potential=Action.REDACT))
    events = READERS[reader](generation(local, "doubt", by))
    assert DOUBT not in reasoning_in(events)
    assert DOUBTFUL_THOUGHT.startswith(reasoning_in(events))
    assert [event.channel for event in events if isinstance(event, Redacted)] == ["reasoning"]
    assert answer_in(events) == ANSWER


@readers
def test_without_a_verdict_nothing_leaves_and_the_model_stops(local: Local, reader: str) -> None:
    counter = Counter()
    failing = InstantScriptedJudge(lambda window: JudgeError("no verdict today"))
    made = generation(local, "harm", guard(failing), stopping_criteria=[counter])
    events = READERS[reader](made)
    assert reasoning_in(events) == answer_in(events) == ""
    assert [event.cause for event in events if isinstance(event, Aborted)] == [AbortCause.JUDGE_FAILURE]
    assert counter.tokens < 200


def test_all_of_it_can_be_read_at_once(local: Local) -> None:
    assert generation(local, "bread").read() == GeneratedText(CALM_THOUGHT, ANSWER)
    aborted = generation(local, "harm").read()
    assert (aborted.answer, HARM in aborted.reasoning) == (Policy().notice, False)
    redacted = generation(local, "doubt", guard(reasoning=Rule(potential=Action.REDACT))).read()
    assert redacted.reasoning.endswith(Policy().notice)
    assert redacted.answer == ANSWER


@pytest.mark.anyio
async def test_all_of_it_can_be_awaited_at_once(local: Local) -> None:
    assert await generation(local, "bread").aread() == GeneratedText(CALM_THOUGHT, ANSWER)


# -- how texts begin, and what they hold -------------------------------------------------------------


def test_a_prompt_that_opens_the_thought_is_seen(local: Local) -> None:
    made = generation(local, "bread", opens=True)
    assert made.read() == GeneratedText(CALM_THOUGHT, ANSWER)


@pytest.mark.parametrize(
    ("thinking", "reasoning"),
    [("explicit", CALM_THOUGHT), ("preopened", CALM_THOUGHT), ("auto", CALM_THOUGHT)],
)
def test_the_mode_may_be_told(local: Local, thinking: str, reasoning: str) -> None:
    assert generation(local, "bread", thinking=thinking).read() == GeneratedText(reasoning, ANSWER)


def test_told_to_be_explicit_the_end_of_the_prompt_counts_for_nothing(local: Local) -> None:
    said = generation(local, "bread", thinking="explicit", opens=True).read()
    assert said == GeneratedText("", CALM_THOUGHT + ANSWER)


def test_the_markers_may_be_ones_own(local: Local) -> None:
    said = generation(local, "bread", markers=tag_pair("[[", "]]")).read()
    assert said == GeneratedText("", TEXTS["bread"])


@pytest.mark.parametrize("tokens", range(88, 101))
def test_cut_off_anywhere_it_says_what_the_model_said(local: Local, tokens: int) -> None:
    inputs = asked(local.tokenizer, "bread")
    out = local.model.generate(**inputs, max_new_tokens=tokens)[0, inputs["input_ids"].shape[1] :]
    said = "".join(getattr(event, "text", "") for event in generation(local, "bread", max_new_tokens=tokens))
    assert said == local.tokenizer.decode(out).removesuffix("<|eos|>")


def test_special_tokens_are_left_out(local: Local) -> None:
    said = generation(local, "secret").read()
    assert said == GeneratedText(f"{CALM_THOUGHT[:80]}.", "Rain taps.")


def test_special_tokens_that_are_markers_part_the_text(local: Local) -> None:
    events = list(generation(local, "harmony"))
    assert reasoning_in(events) == CALM_THOUGHT[:200]
    assert answer_in(events) == ANSWER
    assert [event.text for event in events if isinstance(event, Passthrough)] == [
        "<|channel|>analysis<|message|>",
        "<|end|>",
        "<|start|>assistant",
        "<|channel|>final<|message|>",
        "<|return|>",
    ]


# -- leaving -----------------------------------------------------------------------------------------


def test_leaving_early_stops_the_model(local: Local) -> None:
    counter = Counter()
    made = generation(local, "harm", guard(InstantScriptedJudge()), stopping_criteria=[counter])
    with made as stream:
        next(stream)
    assert made.report.ended is Ended.CLIENT_LEFT
    assert not threads()
    assert counter.rests()
    assert counter.tokens < 200


@pytest.mark.anyio
@pytest.mark.parametrize("ahead", [True, False])
async def test_leaving_early_stops_the_model_in_an_event_loop(local: Local, ahead: bool) -> None:
    counter = Counter()
    made = generation(local, "harm", guard(InstantScriptedJudge()), stopping_criteria=[counter])
    if ahead:
        async with made as stream:
            await anext(stream)
    else:
        async for _ in made:
            break
        await made.aclose()
    assert made.report.ended is Ended.CLIENT_LEFT
    assert counter.rests()
    assert counter.tokens < 200


@pytest.mark.anyio
async def test_a_cancelled_reader_stops_the_model(local: Local) -> None:
    counter = Counter()
    slow = guard(ScriptedJudge(delay=30), judge_timeout=0.2)
    with anyio.move_on_after(0.05):
        async with generation(local, "harm", slow, stopping_criteria=[counter]) as stream:
            async for _ in stream:
                pass
    assert comes_true(lambda: not threads())
    assert counter.tokens < 270  # of 277


def test_a_generation_that_nobody_keeps_stops(local: Local) -> None:
    counter = Counter()
    made = generation(local, "harm", guard(InstantScriptedJudge()), stopping_criteria=[counter])
    next(iter(made))
    del made
    gc.collect()
    assert comes_true(lambda: not threads())
    assert counter.tokens < 200


def test_one_that_is_never_read_never_begins(local: Local) -> None:
    counter = Counter()
    made = generation(local, "bread", stopping_criteria=[counter])
    assert not threads()
    made.close()
    assert counter.tokens == 0
    assert made.report.ended is Ended.CLIENT_LEFT


# -- bounds ------------------------------------------------------------------------------------------


def test_the_model_waits_while_the_guard_holds_as_much_as_it_may(local: Local) -> None:
    counter = Counter()
    by = guard(ScriptedJudge(delay=0.4), max_held=200, judge_timeout=5)
    with generation(local, "harm", by, stopping_criteria=[counter]) as stream:
        assert isinstance(next(stream), Passthrough)
        assert reasoning_in([next(stream)])  # once there was a verdict
        assert counter.tokens < 150  # 200 characters, the 32 tokens behind them, and some since the verdict


def test_the_model_waits_for_a_slow_reader(local: Local) -> None:
    counter = Counter()
    with generation(local, "harm", guard(InstantScriptedJudge()), stopping_criteria=[counter]) as stream:
        next(stream)
        assert comes_true(counter.rests)
        ahead = counter.tokens
        assert ahead < 150
        for _ in range(60):
            next(stream)
        assert comes_true(lambda: counter.tokens > ahead)


# -- faults ------------------------------------------------------------------------------------------


@readers
def test_what_generate_raises_reaches_the_reader(local: Local, reader: str) -> None:
    made = generation(local, "harm", guard(InstantScriptedJudge()), stopping_criteria=[Counter(fails_at=90)])
    with pytest.raises(ZeroDivisionError, match="the model broke"):
        READERS[reader](made)
    assert made.report.ended is Ended.SOURCE_FAILED
    assert made.report.reasoning.judged == made.report.reasoning.seen > 0


def test_an_option_that_generate_does_not_know_reaches_the_reader(local: Local) -> None:
    with pytest.raises(ValueError, match="no_such_option"):
        generation(local, "bread", no_such_option=1).read()


@pytest.mark.parametrize("fails_at", [None, 90])
def test_no_tensor_is_left(local: Local, fails_at: int | None) -> None:
    def living() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    generation(local, "harm").read()  # what is made once is made
    before = living()
    inputs = asked(local.tokenizer, "harm")
    prompt = weakref.ref(inputs["input_ids"])
    counter = Counter(fails_at=fails_at)
    made = guard_generate(
        local.model,
        local.tokenizer,
        inputs,
        guard(InstantScriptedJudge()),
        max_new_tokens=NEVER,
        stopping_criteria=[counter],
    )
    del inputs
    error: Exception | None = None
    try:
        made.read()
    except ZeroDivisionError as raised:
        error = raised
    assert (error is None) is (fails_at is None)
    assert comes_true(lambda: not threads())
    assert living() <= before  # some of what there was may have been freed
    assert prompt() is None
    assert made.report.ended is (Ended.COMPLETE if fails_at is None else Ended.SOURCE_FAILED)


# -- what cannot be guarded --------------------------------------------------------------------------


def test_several_prompts_are_refused(local: Local) -> None:
    inputs = local.tokenizer(["bread", "bread"], return_tensors="pt")
    with pytest.raises(ConfigError, match="'input_ids' holds 2 prompts; call guard_generate"):
        guard_generate(local.model, local.tokenizer, inputs, guard())
    with pytest.raises(ConfigError, match="'inputs' holds 2 prompts"):
        guard_generate(local.model, local.tokenizer, inputs["input_ids"], guard())


@pytest.mark.parametrize("name", ["num_beams", "num_return_sequences"])
def test_several_texts_are_refused(local: Local, name: str) -> None:
    options: dict[str, Any] = {name: 2}
    with pytest.raises(ConfigError, match=f"{name}=2: only one text can be streamed; take {name}=1"):
        generation(local, "bread", guard(), **options)
    config = copy.deepcopy(local.model.generation_config)
    setattr(config, name, 2)
    with pytest.raises(ConfigError, match=f"{name}=2"):
        generation(local, "bread", generation_config=config)


def test_a_streamer_is_refused(local: Local) -> None:
    with pytest.raises(ConfigError, match="would get what was not judged"):
        generation(local, "bread", streamer=object())


def test_a_mode_that_is_none_is_refused(local: Local) -> None:
    with pytest.raises(ConfigError, match="thinking='perhaps'"):
        generation(local, "bread", thinking="perhaps")


def test_a_model_that_does_not_stream_is_an_error(local: Local) -> None:
    class Silent:
        device = torch.device("cpu")
        generation_config = None

        def generate(self, **options: Any) -> None: ...

    made = guard_generate(Silent(), local.tokenizer, asked(local.tokenizer, "bread"), guard())
    made.read()
    assert made.report.aborted is not None
    assert "'Silent' does not stream" in str(made.report.aborted.error)


def test_several_texts_that_come_all_the_same_are_an_error(local: Local) -> None:
    class Doubling:
        device = torch.device("cpu")
        generation_config = None

        def generate(self, *, streamer: Any, **options: Any) -> None:
            streamer.put(torch.zeros(2, 3, dtype=torch.long))

    made = guard_generate(Doubling(), local.tokenizer, asked(local.tokenizer, "bread"), guard())
    made.read()
    assert made.report.aborted is not None
    assert "gave 2 texts at once" in str(made.report.aborted.error)


@pytest.mark.parametrize("inputs", ["bread", [1, 2], {"input_ids": [[1, 2]]}])
def test_what_is_no_tensor_is_refused(local: Local, inputs: Any) -> None:
    with pytest.raises(ConfigError, match="is no tensor; have the tokenizer return_tensors='pt'"):
        guard_generate(local.model, local.tokenizer, inputs, guard())


def test_a_generation_is_read_in_one_way(local: Local) -> None:
    made = generation(local, "bread")
    with pytest.raises(RuntimeError, match="nothing of this generation was read"):
        _ = made.report
    with made:
        pass
    with pytest.raises(TypeError, match="read with `for`"):
        aiter(made)


@pytest.mark.anyio
async def test_a_generation_that_is_awaited_is_not_read_otherwise(local: Local) -> None:
    made = generation(local, "bread")
    async with made:
        with pytest.raises(TypeError, match="read with `async for`"):
            iter(made)


# -- ways to generate --------------------------------------------------------------------------------

WAYS: dict[str, dict[str, Any]] = {
    "sampling": {"do_sample": True, "top_k": 1},
    "prompt lookup": {"prompt_lookup_num_tokens": 3},
    "a static cache": {"cache_implementation": "static"},
    "no cache": {"use_cache": False},
}


@pytest.mark.parametrize("way", WAYS)
def test_however_it_is_generated_the_text_is_the_same(local: Local, way: str) -> None:
    assert generation(local, "bread", **WAYS[way]).read() == GeneratedText(CALM_THOUGHT, ANSWER)


def test_with_an_assistant_several_tokens_come_at_once(local: Local) -> None:
    counter = Counter()
    made = generation(local, "harm", assistant_model=copy.deepcopy(local.model), stopping_criteria=[counter])
    assert made.read().answer == Policy().notice
    assert generation(local, "bread", assistant_model=copy.deepcopy(local.model)).read().answer == ANSWER


def test_stop_strings_need_no_tokenizer(local: Local) -> None:
    said = generation(local, "bread", stop_strings=["</think>"]).read()
    assert said == GeneratedText(CALM_THOUGHT, "")


def test_a_processor_will_do(local: Local) -> None:
    class Own(ProcessorMixin):
        def __init__(self, tokenizer: Any) -> None:
            self.tokenizer = tokenizer

    inputs = asked(local.tokenizer, "bread")
    made = guard_generate(local.model, Own(local.tokenizer), inputs, guard(), max_new_tokens=NEVER)
    assert made.read() == GeneratedText(CALM_THOUGHT, ANSWER)


def test_token_ids_alone_will_do(local: Local) -> None:
    ids = asked(local.tokenizer, "bread", opens=True)["input_ids"]
    made = guard_generate(local.model, local.tokenizer, ids, guard(), max_new_tokens=NEVER)
    assert made.read() == GeneratedText(CALM_THOUGHT, ANSWER)


def test_embeddings_will_do(local: Local) -> None:
    inputs = asked(local.tokenizer, "bread")
    embeds = local.model.get_input_embeddings()(inputs["input_ids"]).detach()
    given = {"inputs_embeds": embeds, "attention_mask": inputs["attention_mask"]}
    made = guard_generate(local.model, local.tokenizer, given, guard(), max_new_tokens=NEVER)
    assert made.read() == GeneratedText(CALM_THOUGHT, ANSWER)
