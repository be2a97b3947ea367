"""Any model of LlamaIndex's, wrapped in a guard."""

from collections.abc import Iterator
from typing import Any

import anyio
import httpx
import pytest

pytest.importorskip("llama_index.llms.openai")

from llama_index.core.agent.workflow import AgentStream, FunctionAgent
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.callbacks import CallbackManager, EventPayload
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.llms import ChatMessage, ChatResponse, CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.event_handlers import BaseEventHandler
from llama_index_instrumentation.span_handlers import NullSpanHandler

from shieldguard import Action, Guard, Rule, UnguardedClient, history, last_user_turn
from shieldguard_adapters.llama_index import GuardedLLM
from tests.clients.rig import guard, reasoning
from tests.frameworks.failing_judges import FAILING, STOPPED
from tests.frameworks.quoting_errors import ERRORS, Quoting, everything_of
from tests.frameworks.test_llama_index import ANSWER, CALM, HARM, WAYS, model, play
from tests.upstream import Script, Upstream, chat

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


HEARD: list[str] = []


class Events(BaseEventHandler):  # type: ignore[misc]
    """LlamaIndex's own instrumentation."""

    @classmethod
    def class_name(cls) -> str:
        return "Events"

    def handle(self, event: Any, **_: Any) -> None:
        HEARD.append(repr(event) + everything_of(getattr(event, "exception", None)))


class Spans(NullSpanHandler):  # type: ignore[misc]
    def span_exit(self, *arguments: Any, result: Any = None, **options: Any) -> None:
        HEARD.append(repr(result))

    def span_drop(self, *arguments: Any, err: BaseException | None = None, **options: Any) -> None:
        HEARD.append(everything_of(err))


class Callbacks(BaseCallbackHandler):  # type: ignore[misc]
    """Its older kind."""

    def __init__(self) -> None:
        super().__init__([], [])

    def on_event_start(self, *arguments: Any, **options: Any) -> str:
        return ""

    def on_event_end(self, event_type: Any, payload: Any = None, event_id: str = "", **_: Any) -> None:
        HEARD.append(repr(payload) + everything_of((payload or {}).get(EventPayload.EXCEPTION)))

    def start_trace(self, trace_id: str | None = None) -> None: ...

    def end_trace(self, trace_id: str | None = None, trace_map: Any = None) -> None: ...


@pytest.fixture
def heard() -> Iterator[list[str]]:
    root = get_dispatcher("root")
    before = list(root.event_handlers), list(root.span_handlers)
    root.event_handlers, root.span_handlers = [*before[0], Events()], [*before[1], Spans()]
    HEARD.clear()
    yield HEARD
    root.event_handlers, root.span_handlers = before


def ask(upstream: Upstream, way: str, by: Guard | None, **options: Any) -> list[Any]:
    question: Any = "Well?" if "complete" in way else [ChatMessage("Well?")]

    def guarded(llm: Any) -> Any:
        return llm if by is None else GuardedLLM(llm, by)

    async def main() -> list[Any]:
        async with httpx.AsyncClient() as http:
            made = await getattr(guarded(model(upstream, async_http_client=http, **options)), way)(question)
            return [one async for one in made] if "stream" in way else [made]

    if way.startswith("a"):
        return anyio.run(main)
    with httpx.Client() as http:
        made = getattr(guarded(model(upstream, http_client=http, **options)), way)(question)
        return list(made) if "stream" in way else [made]


@pytest.mark.parametrize("way", WAYS)
def test_what_is_harmless_comes_as_without_a_guard(way: str, upstream: Upstream) -> None:
    play(upstream, way, CALM)
    plain = ask(upstream, way, None)
    given = ask(upstream, way, guard())
    assert [(one.message, one.delta) for one in given] == [(one.message, one.delta) for one in plain]
    assert given[-1].message.content == "".join(ANSWER)


@pytest.mark.parametrize("way", [*WAYS, "complete", "acomplete", "stream_complete", "astream_complete"])
@pytest.mark.parametrize("action", [Action.ABORT, Action.REDACT])
def test_harm_ends_in_a_notice_that_instrumentation_sees_too(
    way: str, action: Action, upstream: Upstream, heard: list[str]
) -> None:
    play(upstream, way, HARM)
    given = ask(upstream, way, guard(reasoning=Rule(harmful=action)))
    last = given[-1]
    assert (last.text if "complete" in way else last.message.content).startswith("[Withheld")
    assert "HARM" not in repr(given)
    assert heard
    assert "HARM" not in "".join(heard)


@pytest.mark.parametrize("way", WAYS)
def test_instrumentation_and_callbacks_would_see_it(way: str, upstream: Upstream, heard: list[str]) -> None:
    for by in (None, guard()):
        heard.clear()
        play(upstream, way, HARM)
        ask(upstream, way, by, callback_manager=CallbackManager([Callbacks()]))
        assert ("HARM" in "".join(heard)) == (by is None)


class Limits:
    """Counts what it lets pass."""

    passed = 0

    def acquire(self) -> None:
        self.passed += 1

    async def async_acquire(self) -> None:
        self.passed += 1


@pytest.mark.parametrize("way", WAYS)
def test_the_models_rate_limit_holds(way: str, upstream: Upstream) -> None:
    for by in (None, guard()):
        limits = Limits()
        play(upstream, way, CALM)
        ask(upstream, way, by, rate_limiter=limits)
        assert limits.passed == 1


class Like(OpenAI):  # type: ignore[misc]
    """A model that asks by the methods of another's class, around which there is instrumentation, too."""

    def chat(self, messages: Any, **options: Any) -> Any:
        return super().chat(messages, **options)


class Completes(CustomLLM):  # type: ignore[misc]
    """One whose chats are completions."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata()

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **options: Any) -> Any:
        return CompletionResponse(text="HARM")

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **options: Any) -> Any:
        yield CompletionResponse(text="HARM", delta="HARM")


def test_a_model_that_would_tell_is_refused_where_somebody_listens(heard: list[str]) -> None:
    question = [ChatMessage("Well?")]
    completes = Completes(messages_to_prompt=lambda messages: "Well?")
    completes.chat(question)
    assert "HARM" in heard.pop()
    heard.clear()
    for llm in (completes, Like(model="gpt-4o", api_key="none")):
        with pytest.raises(UnguardedClient, match="calls another method"):
            GuardedLLM(llm, guard()).chat(question)
    assert "HARM" not in "".join(heard)


def test_it_is_guarded_where_nobody_does() -> None:
    llm = GuardedLLM(Completes(messages_to_prompt=lambda messages: "Well?"), guard())
    assert llm.chat([ChatMessage("Well?")]).message.content.startswith("[Withheld")
    assert [one.delta for one in llm.stream_chat([ChatMessage("Well?")])][-1].startswith("[Withheld")


class Breaks(Completes):
    """A model that fails: at once, or behind these texts."""

    _error: Any = PrivateAttr()
    _texts: Any = PrivateAttr()

    def __init__(self, error: Exception, texts: list[str]) -> None:
        super().__init__(callback_manager=CallbackManager([Callbacks()]))
        self._error, self._texts = error, texts

    @llm_chat_callback()
    def chat(self, messages: Any, **options: Any) -> Any:
        raise self._error

    @llm_chat_callback()
    async def achat(self, messages: Any, **options: Any) -> Any:
        raise self._error

    @llm_chat_callback()
    def stream_chat(self, messages: Any, **options: Any) -> Any:
        if not self._texts:
            raise self._error

        def chunks() -> Iterator[Any]:
            for count, text in enumerate(self._texts, start=1):
                said = ChatMessage("".join(self._texts[:count]), role="assistant")
                yield ChatResponse(message=said, delta=text)
            raise self._error

        return chunks()

    @llm_chat_callback()
    async def astream_chat(self, messages: Any, **options: Any) -> Any:
        if not self._texts:
            raise self._error

        async def chunks() -> Any:
            for count, text in enumerate(self._texts, start=1):
                said = ChatMessage("".join(self._texts[:count]), role="assistant")
                yield ChatResponse(message=said, delta=text)
            raise self._error

        return chunks()


def broken(way: str, error: Exception, texts: list[str], by: Guard | None) -> tuple[list[Any], Any]:
    """What a model gave that failed, and its error."""
    given: list[Any] = []
    llm: Any = Breaks(error, texts)
    llm = GuardedLLM(llm, by) if by else llm

    async def main() -> None:
        made = await getattr(llm, way)([ChatMessage("Well?")])
        if "stream" in way:
            async for one in made:
                given.append(one)
        else:
            given.append(made)

    try:
        if way.startswith("a"):
            anyio.run(main)
        elif "stream" in way:
            for one in llm.stream_chat([ChatMessage("Well?")]):
                given.append(one)
        else:
            given.append(llm.chat([ChatMessage("Well?")]))
    except Exception as raised:
        return given, raised
    return given, None


each_break = pytest.mark.parametrize("texts", [[], ANSWER], ids=["at once", "in the midst"])


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("way", WAYS)
@each_break
def test_what_an_error_quotes_is_judged(
    error: Exception, way: str, texts: list[str], heard: list[str]
) -> None:
    assert broken(way, error, texts, None)[1] is error
    assert "HARM" in "".join(heard)
    heard.clear()
    given, raised = broken(way, error, texts, guard())
    assert raised is None
    assert given[-1].message.content.startswith("[Withheld")
    assert "HARM" not in repr(given) + "".join(heard)
    assert heard


@pytest.mark.parametrize("way", WAYS)
@each_break
def test_a_harmless_error_is_raised_as_it_is(way: str, texts: list[str]) -> None:
    error = Quoting(completion={"choices": ["well"]})
    given, raised = broken(way, error, texts, guard())
    assert raised is error
    assert raised.__cause__ is raised.__context__ is None
    assert "".join(one.delta for one in given) == ("".join(texts) if "stream" in way else "")


@pytest.mark.parametrize("way", ["stream_chat", "astream_chat"])
def test_the_model_is_stopped(way: str, upstream: Upstream) -> None:
    upstream.play(Script(chat(reasoning(sentences=60, harm_in=3), ANSWER), delay=0.01))
    ask(upstream, way, guard())
    assert upstream.finished.wait(20)
    assert upstream.sent < len(upstream.script.pieces) / 2


def run(
    upstream: Upstream, way: str, by: Guard, *questions: str, query_from: Any = last_user_turn
) -> tuple[list[str], list[str], str, str]:
    """The answers of an agent, the uses of its tool, and all of its events and of its memory."""
    ran: list[str] = []

    def send(to: str) -> str:
        """Send a parcel."""
        ran.append(to)
        return "sent"

    async def main() -> tuple[list[str], list[str], str, str]:
        answers, told = [], ""
        memory = ChatMemoryBuffer.from_defaults()
        async with httpx.AsyncClient() as http:
            llm = GuardedLLM(model(upstream, async_http_client=http), by, query_from=query_from)
            agent = FunctionAgent(
                tools=[FunctionTool.from_defaults(send)], llm=llm, streaming="stream" in way
            )
            for question in questions or ("Send it.",):
                running = agent.run(user_msg=question, memory=memory)
                async for event in running.stream_events():
                    told += repr(event)
                    told += event.thinking_delta or "" if isinstance(event, AgentStream) else ""
                answers.append(str(await running))
        return answers, ran, told, repr(await memory.aget_all())

    return anyio.run(main)


each_agent = pytest.mark.parametrize("way", ["achat", "astream_chat"])


@each_agent
@pytest.mark.parametrize("harm", ["", "thought", "arguments"])
def test_an_agent_uses_a_tool_only_without_harm(way: str, harm: str, upstream: Upstream) -> None:
    play(upstream, way, HARM if harm == "thought" else CALM, to="HARM" if harm == "arguments" else "a friend")
    [answer], ran, told, kept = run(upstream, way, guard())
    assert "HARM" not in told + kept
    if harm:
        assert answer.startswith("[Withheld")
        assert ran == []
    else:
        assert answer == "".join(ANSWER)
        assert ran == ["a friend"]


@each_agent
@pytest.mark.parametrize("by", FAILING.values(), ids=FAILING)
def test_without_a_verdict_no_text_comes_and_no_tool_runs(way: str, by: Guard, upstream: Upstream) -> None:
    play(upstream, way, CALM, to="a friend")
    [answer], ran, told, kept = run(upstream, way, by)
    assert (answer, ran) == (STOPPED, [])
    assert "Sentence" not in told + kept


@each_agent
def test_the_next_turn_knows_nothing_of_a_blocked_thought(way: str, upstream: Upstream) -> None:
    play(upstream, way, HARM, to="a friend")
    harmful = upstream.first.pop()
    play(upstream, way, CALM)
    upstream.first.append(harmful)
    answers, ran, _, kept = run(upstream, way, guard(), "Send it.", "And now?")
    assert (answers[1], ran) == ("".join(ANSWER), [])
    assert "HARM" not in kept + repr(upstream.requests[-1])


def test_the_query_can_be_the_conversation(upstream: Upstream) -> None:
    class Heard:
        def __init__(self) -> None:
            self.queries: list[str] = []

        def window_judged(self, event: Any) -> None: ...

        def stream_closed(self, report: Any) -> None:
            self.queries.append(report.query)

    heard = Heard()
    by = Guard(judge=guard().judge, observers=[heard])
    play(upstream, "astream_chat", CALM, to="a friend")
    run(upstream, "astream_chat", by, query_from=history())
    first, second = heard.queries
    assert first == "user: Send it."
    assert "reasoning: Sentence 0" in second
    assert second.endswith("tool: sent")
