"""The calls of LiteLLM's SDK, guarded, and the guardrail of its proxy beside those that would let harm by."""

import gc
import itertools
import json
import threading
import warnings
from typing import Any

import anyio
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # LiteLLM's own are many
    litellm = pytest.importorskip("litellm")
    pytest.importorskip("litellm.proxy.utils")

import openai
from litellm import ModelResponse
from litellm.integrations.custom_guardrail import CustomGuardrail
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import UserAPIKeyAuth
from litellm.proxy.common_utils.user_api_key_cache import UserApiKeyCache
from litellm.proxy.utils import ProxyLogging
from litellm.types.guardrails import GuardrailEventHooks
from pydantic import BaseModel

from shieldguard import Action, Guard, Rule, history
from shieldguard_adapters.clients import guard_client
from shieldguard_adapters.litellm import ShieldguardGuardrail, acompletion, completion
from tests.clients.rig import QUESTION, guard, reasoning
from tests.frameworks.failing_judges import FAILING, STOPPED
from tests.frameworks.quoting_errors import everything_of
from tests.upstream import DONE, Script, Upstream, chat, chunk
from tests.upstream import completion as whole
from tests.wire import messages

pytestmark = pytest.mark.filterwarnings("ignore")

HARM = reasoning(harm_in=3)
CALM = reasoning(sentences=4)
ANSWER = ["All is well. ", "It really is."]
WAYS = ["streamed", "whole", "streamed async", "whole async"]


@pytest.fixture(autouse=True)
def _blocking_calls_fail() -> None:
    """LiteLLM looks for certificates and reads its own sources in the event loop."""


@pytest.fixture(autouse=True)
def alone() -> Any:
    """No callbacks, and no client of another event loop's."""
    litellm.callbacks, litellm.input_callback = [], []
    litellm.turn_off_message_logging = False
    litellm.disable_aiohttp_transport = True
    litellm.in_memory_llm_clients_cache.flush_cache()
    yield
    litellm.callbacks, litellm.input_callback = [], []
    litellm.turn_off_message_logging = False
    litellm.in_memory_llm_clients_cache.flush_cache()
    gc.collect()  # while its warnings of what was left open are ignored


def play(upstream: Upstream, way: str, thought: list[str], call: bool = False, **script: Any) -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": "send", "arguments": '{"to": "a friend"}'}}]
    if "streamed" in way:
        frames = chat(thought, ANSWER)
        if call:
            frames = [chunk({"reasoning_content": piece}) for piece in thought]
            frames += [
                chunk({"tool_calls": [{"index": 0, **calls[0]}]}),
                chunk({}, finish_reason="tool_calls"),
                DONE,
            ]
        upstream.play(Script(frames, **script))
        return
    message: dict[str, Any] = {"reasoning_content": "".join(thought), "content": "".join(ANSWER)}
    message |= {"tool_calls": calls} if call else {}
    upstream.play(Script([whole(message)], content_type="application/json", **script))


def ask(
    upstream: Upstream, way: str, by: Guard | None, wait_for: "Heard | None" = None, **options: Any
) -> tuple[Any, list[Any]]:
    """The message, and all that was given."""
    request: dict[str, Any] = {
        "model": "openai/m",
        "api_base": upstream.url,
        "api_key": "none",
        "messages": QUESTION,
    }
    request |= {"stream": "streamed" in way, "max_retries": 0, **options}

    async def main() -> list[Any]:
        made = await (litellm.acompletion(**request) if by is None else acompletion(by, **request))
        given = [one async for one in made] if "streamed" in way else [made]
        if wait_for:
            assert await anyio.to_thread.run_sync(wait_for.ended.wait, 10)
        return given

    if "async" in way:
        given = anyio.run(main)
    else:
        made = litellm.completion(**request) if by is None else completion(by, **request)
        given = list(made) if "streamed" in way else [made]
        assert wait_for is None or wait_for.ended.wait(10)
    if "streamed" in way:
        return litellm.stream_chunk_builder(given).choices[0].message, given
    return given[0].choices[0].message, given


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("call", [False, True])
def test_what_is_harmless_comes_as_without_a_guard(way: str, call: bool, upstream: Upstream) -> None:
    play(upstream, way, CALM, call)
    expected, plain = ask(upstream, way, None)
    message, given = ask(upstream, way, guard())
    assert message == expected
    assert message.reasoning_content == "".join(CALM)
    assert len(given) == len(plain)
    assert [one.model_dump(exclude={"id", "created"}) for one in given] == [
        one.model_dump(exclude={"id", "created"}) for one in plain
    ]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("call", [False, True])
def test_a_harmful_thought_is_a_refusal_and_calls_no_tool(way: str, call: bool, upstream: Upstream) -> None:
    play(upstream, way, HARM, call)
    message, given = ask(upstream, way, guard())
    assert message.content.startswith("[Withheld")
    assert not message.tool_calls
    assert "HARM" not in repr(given)
    assert "All is well" not in repr(given)
    assert given[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize("way", WAYS)
def test_it_can_end_as_a_providers_filter_would(way: str, upstream: Upstream) -> None:
    play(upstream, way, HARM)
    _, given = ask(upstream, way, guard(), termination="content_filter")
    assert given[-1].choices[0].finish_reason == "content_filter"
    with pytest.raises(litellm.exceptions.GuardrailRaisedException, match="Withheld"):
        ask(upstream, way, guard(), termination="error")


@pytest.mark.parametrize("way", WAYS)
def test_a_redaction_leaves_the_answer(way: str, upstream: Upstream) -> None:
    by = guard(reasoning=Rule(harmful=Action.REDACT), notice="[gone]")
    play(upstream, way, HARM)
    message, given = ask(upstream, way, by)
    assert message.content == "".join(ANSWER)
    assert message.reasoning_content.endswith("[gone]")
    assert "HARM" not in repr(given)


class Plan(BaseModel):
    step: str


@pytest.mark.parametrize("way", WAYS)
def test_of_structured_output_nothing_is_cut_out(way: str, upstream: Upstream) -> None:
    by = guard(reasoning=Rule(harmful=Action.REDACT))
    play(upstream, way, HARM)
    message, _ = ask(upstream, way, by, response_format=Plan)
    assert message.content.startswith("[Withheld")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("by", FAILING.values(), ids=FAILING)
def test_without_a_verdict_no_text_comes_and_no_call(way: str, by: Guard, upstream: Upstream) -> None:
    play(upstream, way, CALM, call=True)
    message, given = ask(upstream, way, by)
    assert message.content == STOPPED
    assert not message.tool_calls
    assert "Sentence" not in repr(given)


@pytest.mark.parametrize("way", ["streamed", "streamed async"])
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_the_model_is_stopped(way: str, provider: str, upstream: Upstream) -> None:
    thought = reasoning(sentences=60, harm_in=3)
    play(upstream, way, thought, delay=0.01)
    options: dict[str, Any] = {}
    if provider == "anthropic":
        frames = messages.message(messages.thinking(0, *thought), messages.text(1, *ANSWER))
        upstream.play(Script(frames, delay=0.01))
        options = {"model": "anthropic/m", "api_base": upstream.url.removesuffix("/v1")}
    ask(upstream, way, guard(), **options)
    assert upstream.finished.wait(20)
    assert upstream.sent < len(upstream.script.pieces) / 2


def test_the_query_can_be_the_conversation(upstream: Upstream) -> None:
    queries: list[str] = []

    class Heard:
        def window_judged(self, event: Any) -> None: ...

        def stream_closed(self, report: Any) -> None:
            queries.append(report.query)

    play(upstream, "whole", CALM)
    by = Guard(judge=guard().judge, observers=[Heard()])
    ask(upstream, "whole", by, messages=[{"role": "system", "content": "Be kind."}, *QUESTION])
    ask(
        upstream,
        "whole",
        by,
        query_from=history(),
        messages=[{"role": "system", "content": "Be kind."}, *QUESTION],
    )
    assert queries == ["What do you think?", "system: Be kind.\nuser: What do you think?"]
    step = {"role": "assistant", "content": "Wait.", "reasoning_content": "I have to look."}
    ask(upstream, "whole", by, query_from=history(), messages=[*QUESTION, step, *QUESTION])
    assert "reasoning: I have to look." in queries[-1]


class Heard(CustomLogger):
    """All that LiteLLM tells a logger of the calls to this model, and when it has told of the end of one.

    Each has a model of its own, as LiteLLM tells of earlier calls late, in a thread.
    """

    numbers = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.model = f"m{next(self.numbers)}-"  # "m1" would be found in "m10", too
        self.text = ""
        self.ended = threading.Event()

    def _heard(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> bool:
        told = repr(kwargs) + repr(response_obj)
        if self.model not in told:
            return False
        self.text += told
        return True

    def _last(self, **told: Any) -> None:
        if self._heard(**told):
            self.ended.set()

    async def _heard_async(self, **told: Any) -> None:
        self._heard(**told)

    async def _last_async(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self._last(kwargs=kwargs, response_obj=response_obj, start_time=start_time, end_time=end_time)

    log_post_api_call: Any = _heard
    log_stream_event: Any = _heard
    log_success_event: Any = _last
    async_log_stream_event: Any = _heard_async
    async_log_success_event: Any = _last_async


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
def test_callbacks_would_hear_it_and_hear_no_text(way: str, provider: str, upstream: Upstream) -> None:
    for by in (None, guard({})):
        heard = Heard()
        litellm.callbacks = [heard]
        play(upstream, way, HARM, call=True)
        ask(upstream, way, by, wait_for=heard, model=f"{provider}/{heard.model}")
        assert ("HARM" in heard.text, "a friend" in heard.text) == (by is None, by is None)


def test_callbacks_hear_what_is_judged_of_a_guarded_client(upstream: Upstream) -> None:
    heard = Heard()
    litellm.callbacks = [heard]
    play(upstream, "whole", HARM)
    with openai.OpenAI(base_url=upstream.url, api_key="none", max_retries=0) as client:
        options = {"client": guard_client(client, guard()), "model": f"openai/{heard.model}"}
        message, _ = ask(upstream, "whole", None, wait_for=heard, **options)
    assert message.content.startswith("[Withheld")
    assert "Withheld" in heard.text
    assert "HARM" not in heard.text


# With a fallback, LiteLLM's own `completion` gives an async stream.
@pytest.mark.parametrize("way", [way for way in WAYS if way != "streamed"])
def test_the_model_that_it_falls_back_to_is_guarded(way: str, upstream: Upstream) -> None:
    play(upstream, way, HARM)
    upstream.first.append(Script([b"{}"], content_type="application/json", status=500))
    message, given = ask(upstream, way, guard(), fallbacks=["openai/other"])
    assert [asked["model"] for asked in upstream.requests] == ["m", "other"]
    assert message.content.startswith("[Withheld")
    assert "HARM" not in repr(given)


@pytest.mark.parametrize("way", ["streamed", "streamed async"])
def test_the_error_of_a_stream_that_broke_holds_no_text(way: str, upstream: Upstream) -> None:
    frames = [chunk({"content": piece}) for piece in CALM]
    for by in (None, guard()):
        upstream.play(Script(frames, cut=True))
        with pytest.raises(litellm.exceptions.MidStreamFallbackError) as raised:
            ask(upstream, way, by)
        assert ("Sentence 0" in repr(vars(raised.value))) == (by is None)


def fail(upstream: Upstream, way: str, said: str) -> None:
    """The model's server fails: with its answer, or in the midst of that."""
    error = json.dumps({"error": {"message": f"could not parse {said!r}", "code": 400}}).encode()
    upstream.play(Script([error], content_type="application/json", status=400))
    if "midst" in way:
        frames = [chunk({"content": piece}) for piece in CALM]
        upstream.play(Script([*frames, b"data: " + error + b"\n\n"]))


BREAKING = ["streamed, in the midst", "streamed async, in the midst", *WAYS]


@pytest.mark.parametrize("way", BREAKING)
def test_what_an_error_quotes_is_judged(way: str, upstream: Upstream) -> None:
    fail(upstream, way, "HARM")
    with pytest.raises(Exception, match="HARM"):
        ask(upstream, way, None)
    if "midst" in way:
        message, given = ask(upstream, way, guard())
        assert message.content.endswith("[Withheld: a safety check rated this content as harmful.]")
        assert "HARM" not in repr(given)
    else:
        with pytest.raises(litellm.exceptions.GuardrailRaisedException, match="Withheld") as raised:
            ask(upstream, way, guard())
        assert raised.value.blocked_content
        assert "HARM" not in everything_of(raised.value)


@pytest.mark.parametrize("way", BREAKING)
def test_a_harmless_error_is_raised_as_it_is(way: str, upstream: Upstream) -> None:
    fail(upstream, way, "nothing of note")
    raised = []
    for by in (None, guard()):
        with pytest.raises(openai.APIStatusError, match="nothing of note") as one:
            ask(upstream, way, by)
        raised.append((type(one.value), str(one.value), one.value.status_code))
    assert raised[0] == raised[1]
    kinds = litellm.exceptions
    assert raised[0][0] is (kinds.MidStreamFallbackError if "midst" in way else kinds.BadRequestError)


# -- the proxy's guardrail, without a proxy -----------------------------------------------------


class Obvious(CustomGuardrail):
    """A guardrail by LiteLLM's common interface."""

    def __init__(self) -> None:
        super().__init__("obvious", event_hook=GuardrailEventHooks.post_call, default_on=True)
        self.texts = ""

    async def apply_guardrail(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self.texts += json.dumps(inputs.get("texts"))
        return inputs


class Ours(ShieldguardGuardrail):
    guard = guard()


class Inherited(Ours):
    pass


def through(upstream: Upstream, guardrail: CustomGuardrail) -> str:
    """What the proxy gives of a streamed chat completion."""
    litellm.callbacks = [guardrail]
    request = {"model": "openai/m", "messages": QUESTION, "stream": True}
    by = UserAPIKeyAuth(api_key="k", request_route="/v1/chat/completions")

    async def main() -> str:
        response = await litellm.acompletion(**request, api_base=upstream.url, api_key="none")
        logging = ProxyLogging(user_api_key_cache=UserApiKeyCache())
        chunks = logging.async_post_call_streaming_iterator_hook(response, by, {**request, "metadata": {}})
        return "".join([repr(one) async for one in chunks])

    return anyio.run(main)


def test_the_common_interface_is_shown_no_thought(upstream: Upstream) -> None:
    obvious = Obvious()
    play(upstream, "streamed", HARM)
    assert "HARM" in through(upstream, obvious)
    assert "All is well" in obvious.texts
    assert "HARM" not in obvious.texts


@pytest.mark.parametrize("kind", [Ours, Inherited])
def test_ours_is_shown_it_and_so_is_a_class_of_it(kind: type[Ours], upstream: Upstream) -> None:
    guardrail = kind(guardrail_name="ours", event_hook=GuardrailEventHooks.post_call, default_on=True)
    play(upstream, "streamed", HARM)
    given = through(upstream, guardrail)
    assert "Withheld" in given
    assert "HARM" not in given


@pytest.mark.parametrize("way", ["streamed async", "whole async"])
def test_the_callbacks_of_a_proxy_with_it_hear_no_text(way: str, upstream: Upstream) -> None:
    options: Any = {"guardrail_name": "ours", "event_hook": GuardrailEventHooks.post_call}
    for log_unjudged in (True, False):
        heard = Heard()
        litellm.callbacks = [Ours(log_unjudged=log_unjudged, **options), heard]
        play(upstream, way, HARM, call=True)
        ask(upstream, way, None, wait_for=heard, model=f"openai/{heard.model}")
        assert ("HARM" in heard.text, "a friend" in heard.text) == (log_unjudged, log_unjudged)


def test_it_cannot_be_set_to_a_mode_in_which_it_would_do_nothing() -> None:
    with pytest.raises(ValueError, match="pre_call"):
        Ours(guardrail_name="ours", event_hook=GuardrailEventHooks.pre_call, default_on=True)


def test_whole_responses_without_text_pass_and_others_are_refused() -> None:
    ours = Ours(guardrail_name="ours", event_hook=GuardrailEventHooks.post_call)
    vectors = litellm.EmbeddingResponse(model="m", data=[])

    async def main() -> None:
        assert await ours.async_post_call_success_hook({}, None, vectors) is vectors
        with pytest.raises(litellm.exceptions.GuardrailRaisedException, match="cannot be guarded") as raised:
            await ours.async_post_call_success_hook({}, None, litellm.TextCompletionResponse())
        assert raised.value.status_code == 400
        assert isinstance(await ours.async_post_call_success_hook({}, None, ModelResponse()), ModelResponse)

    anyio.run(main)
