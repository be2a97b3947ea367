"""What users write, as a type checker reads it. Nothing here is run."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never, assert_type

from shieldguard import (
    AbortCause,
    Aborted,
    Action,
    Answer,
    Cascade,
    Channel,
    ConfigError,
    CutBy,
    End,
    Ended,
    Guard,
    GuardedStream,
    GuardSession,
    InstantJudge,
    Judge,
    JudgeError,
    Marker,
    Message,
    Observer,
    Opaque,
    OpaqueKind,
    Passthrough,
    Policy,
    QueryFrom,
    Reasoning,
    Redacted,
    Relabel,
    Release,
    ReleasedEvent,
    RiskCategory,
    RiskDetected,
    RiskLevel,
    Rule,
    SentenceWindower,
    SizeWindower,
    SourceError,
    SourceEvent,
    StreamReport,
    SyncGuardedStream,
    Tally,
    Thinking,
    ThinkSplitter,
    ToolCall,
    Verdict,
    Window,
    Windower,
    WindowJudged,
    history,
    last_user_turn,
    tag_pair,
)
from shieldguard.config import GuardConfig, load_judge
from shieldguard.judges.embedded import EmbeddedJudge
from shieldguard.judges.local import LocalJudge, Usage
from shieldguard.judges.remote import RemoteJudge
from shieldguard.testing import InstantScriptedJudge, ScriptedJudge, rechunk, scripted_stream
from shieldguard_adapters.transformers import GeneratedText, GuardedGeneration, guard_generate

# -- judges, windowers and observers of one's own: no base class, no registration --------------------


class Plain:
    name = "plain"

    async def judge(self, window: Window) -> Verdict:
        assert_type(window.new, str)
        assert_type(window.channel, Channel)
        return Verdict(level=RiskLevel.SAFE, judge=self.name, category=RiskCategory.SAFE)


@dataclass(frozen=True)
class Instant:
    name: str = "instant"

    def judge_now(self, window: Window) -> Verdict:
        return Verdict(level=RiskLevel.HARMFUL, probabilities={RiskLevel.HARMFUL: 1.0})

    async def judge(self, window: Window) -> Verdict:
        return self.judge_now(window)


class Lines:
    def cut(self, text: str, start: int) -> int:
        return text.find("\n", start) + 1


class Log:
    def window_judged(self, event: WindowJudged) -> None:
        assert_type(event.verdict, Verdict | None)
        assert_type(event.error, JudgeError | None)
        assert_type(event.action, Action)
        assert_type(event.cut_by, CutBy)

    def stream_closed(self, report: StreamReport) -> None:
        print(report.ended)


class Timed(Log):
    def stream_began(self, stream: str) -> None:
        print(stream)


class Mute:
    name = "mute"


def guards() -> Guard:
    rule = Rule(potential=Action.REDACT)
    policy = Policy(reasoning=rule, answer=None, release=Release.LAG, max_wait=None)
    judges: Sequence[Judge] = [Plain(), Instant(), ScriptedJudge()]
    instant: Sequence[InstantJudge] = [Instant(), InstantScriptedJudge({"HARM": 1.0})]
    windowers: Sequence[Windower] = [Lines(), SentenceWindower(longest=400), SizeWindower(size=200)]
    observers: list[Observer] = [Log(), Timed()]
    Guard()
    Guard(judge=judges[0], observers=(Log(),))
    Guard(judge=Mute())  # type: ignore[arg-type]
    Guard(Plain())  # type: ignore[call-arg]
    return Guard(judge=instant[0], policy=policy, windower=windowers[0], observers=observers)


def a_guard_is_shared_and_does_not_change(guard: Guard) -> None:
    assert_type(guard.judge, Judge)
    assert_type(guard.policy, Policy)
    assert_type(guard.windower, Windower)
    assert_type(guard.observers, Sequence[Observer])
    assert_type(guard.policy.rule(Channel.ANSWER), Rule | None)
    assert_type(guard.policy.reasoning.action(RiskLevel.POTENTIAL), Action)
    guard.judge = Plain()  # type: ignore[misc]
    guard.policy.release = Release.SHADOW  # type: ignore[misc]


# -- sources -----------------------------------------------------------------------------------------


async def texts() -> AsyncIterator[str]:
    yield "<think>I wonder.</think>So."


async def reasoning_and_answer() -> AsyncIterator[Reasoning | Answer]:
    yield Reasoning("I wonder.", choice=0, block=1)
    yield Answer("So.", tentative=True)


async def batches() -> AsyncIterator[list[SourceEvent]]:
    yield [Reasoning("I wonder."), ToolCall("find"), Opaque(OpaqueKind.HIDDEN), Relabel(), End("stop")]


def plain_texts() -> Iterator[str]:
    yield "So."


def sources_of_many_kinds(guard: Guard) -> None:
    assert_type(guard.stream(texts(), query="Why?"), GuardedStream)
    assert_type(guard.stream(reasoning_and_answer(), thinking=Thinking.EXPLICIT), GuardedStream)
    assert_type(guard.stream(batches(), thinking="preopened", redactable=False), GuardedStream)
    assert_type(guard.stream(scripted_stream([Reasoning("a"), ValueError()])), GuardedStream)
    assert_type(guard.stream_sync(plain_texts()), SyncGuardedStream)
    assert_type(guard.stream_sync(["<think>", Reasoning("a")]), SyncGuardedStream)
    assert_type(guard.stream_sync(rechunk([Reasoning("a")], 1)), SyncGuardedStream)
    guard.stream(plain_texts())  # type: ignore[arg-type]
    guard.stream_sync(texts())  # type: ignore[arg-type]
    guard.stream_sync([b"bytes"])  # type: ignore[list-item]
    guard.stream(texts(), "Why?")  # type: ignore[call-arg]
    Reasoning("a", 1)  # type: ignore[call-arg]


# -- reading a stream --------------------------------------------------------------------------------


async def every_event(stream: GuardedStream) -> None:
    async for event in stream:
        assert_type(event, ReleasedEvent)
        match event:
            case Reasoning(text) | Answer(text) | ToolCall(text) | Passthrough(text):
                assert_type(text, str)
            case Redacted(notice, channel):
                assert_type(notice, str)
                assert_type(channel, Channel)
            case Opaque(kind):
                assert_type(kind, OpaqueKind)
            case End(reason):
                assert_type(reason, str | None)
            case Aborted(cause=AbortCause.RISK, verdict=verdict):
                assert_type(verdict, Verdict | None)
            case Aborted(error=error, channel=where):
                assert_type(error, JudgeError | SourceError | None)
                assert_type(where, Channel | None)
            case _:
                assert_never(event)


async def from_end_to_end(guard: Guard) -> Tally:
    async with guard.stream(texts()) as stream:
        assert_type(stream, GuardedStream)
        assert_type(await anext(stream), ReleasedEvent)
        assert_type(await stream.next_batch(), list[ReleasedEvent])
    assert_type(stream.report, StreamReport)
    assert_type(await stream.final_report(), StreamReport)
    await stream.aclose()
    with guard.stream(texts()):  # type: ignore[attr-defined]
        pass
    return stream.report.reasoning


def in_a_plain_program(guard: Guard) -> Tally:
    with guard.stream_sync(plain_texts()) as stream:
        assert_type(stream, SyncGuardedStream)
        assert_type(next(stream), ReleasedEvent)
        assert_type(stream.next_batch(), list[ReleasedEvent])
        assert_type([event for event in stream], list[ReleasedEvent])  # noqa: C416
    assert_type(stream.report, StreamReport)
    assert_type(stream.final_report(), StreamReport)
    stream.close()
    return stream.report.answer


def an_account(report: StreamReport) -> None:
    assert_type(report.ended, Ended)
    assert_type(report.level, RiskLevel | None)
    assert_type(report.failures, int)
    assert_type(report.windows, Sequence[WindowJudged])
    assert_type(report.reasoning.added, float | None)
    assert_type(report.unobservable, frozenset[OpaqueKind])
    assert_type(report.closed_after, float | None)
    if report.level is not None and report.level >= RiskLevel.POTENTIAL:
        assert_type(str(report.level), str)
    if report.aborted is not None:
        assert_type(report.aborted.cause, AbortCause)
    for window in report.windows:
        if window.verdict is not None:
            assert_type(window.verdict.risk, float | None)
            assert_type(window.verdict.category, RiskCategory | None)
    try:
        report.raise_for_risk()
    except (RiskDetected, JudgeError, SourceError) as error:
        print(error)


# -- the parts ---------------------------------------------------------------------------------------


def a_session_by_hand(source: Sequence[SourceEvent], verdict: Verdict) -> list[ReleasedEvent]:
    session = GuardSession("Why?", policy=Policy(), windower=SizeWindower(), redactable=False)
    for event in source:
        session.receive(event, 0.0)
    session.finish(1.0)
    for window in assert_type(session.windows(1.0), list[Window]):
        session.judged(window, verdict, 2.0)
    assert_type(session.aborted, Aborted | None)
    assert_type(session.deadline, float | None)
    assert_type(session.report(), StreamReport)
    return assert_type(session.take(2.0), list[ReleasedEvent])


def inline_thinking(text: str) -> None:
    splitter = ThinkSplitter(Thinking.AUTO, markers=tag_pair("[[", "]]"), choice=1)
    assert_type(tag_pair("[[", "]]"), tuple[Marker, Marker])
    assert_type(splitter.feed(text), list[Reasoning | Answer | Passthrough | Relabel])
    assert_type(splitter.flush(), list[Reasoning | Answer | Passthrough | Relabel])
    ThinkSplitter("preopened")


def a_query(messages: Sequence[Message]) -> str:
    ways: list[QueryFrom] = [last_user_turn, history(1000), lambda messages: messages[0].text]
    return assert_type(ways[0](messages), str)


def on_this_machine_and_on_others() -> Judge:
    def told(window: Window, piece: str) -> None:
        print(window.stream, piece)

    local = LocalJudge("ReasoningShield/ReasoningShield-1B", mode="fast", harmful=0.4, memory=1 << 32)
    remote = RemoteJudge(["http://10.0.0.7:8000/v1"], model="ReasoningShield/ReasoningShield-3B", api_key="k")
    assert_type(local.in_mode("full", on_analysis=told), LocalJudge)
    assert_type(remote.in_mode("full", on_analysis=told), RemoteJudge)
    assert_type(local.usage, Usage)
    return Cascade(EmbeddedJudge(), Cascade(local, remote, threshold=0.2), confirm_timeout=60)


async def a_model_in_this_process(model: object, tokenizer: object, inputs: object, guard: Guard) -> str:
    made = guard_generate(model, tokenizer, inputs, guard, query="Why?", thinking="auto", max_new_tokens=9)
    assert_type(made, GuardedGeneration)
    for event in made:
        assert_type(event, ReleasedEvent)
    async for event in made:
        assert_type(event, ReleasedEvent)
    with made as plain:
        assert_type(plain, SyncGuardedStream)
    async with made as stream:
        assert_type(stream, GuardedStream)
    assert_type(made.report, StreamReport)
    assert_type(await made.aread(), GeneratedText)
    return assert_type(made.read(), GeneratedText).answer


def settings(factory: Callable[[Window], Verdict | JudgeError | float]) -> Guard:
    try:
        config = assert_type(GuardConfig.load("guard.toml"), GuardConfig)
    except ConfigError:
        config = GuardConfig()
    assert_type(load_judge("embedded"), Judge)
    ScriptedJudge(factory, delay=0.1)
    return assert_type(config.build(observers=[Log()]), Guard)
