"""Gemini's generateContent through the codec."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shieldguard import (
    Action,
    Answer,
    End,
    Ended,
    Guard,
    Opaque,
    OpaqueKind,
    OpaqueReasoning,
    Passthrough,
    Reasoning,
    Rule,
    ToolCall,
    WireError,
    history,
)
from shieldguard.testing import InstantScriptedJudge
from shieldguard_adapters.wire import Termination
from shieldguard_adapters.wire.apis import GEMINI
from shieldguard_adapters.wire.endpoints import Options
from shieldguard_adapters.wire.gemini import ContentBody, ContentStream, read_request
from tests.wire.contents import (
    USAGE,
    bodies_in,
    body,
    call,
    candidate,
    candidates_in,
    content,
    frame,
    parts_in,
    reason_in,
    said,
    thought,
)
from tests.wire.rig import cut_at, guard, guarded, read, unjudged

REDACT = Rule(harmful=Action.REDACT)
NOTICE = guard().policy.notice
WORDS = st.text(st.sampled_from('ab .é😀\n"\\'), max_size=40)
PARTS = st.one_of(
    st.builds(thought, WORDS),
    st.builds(said, WORDS),
    st.builds(lambda text: said(text, thoughtSignature="c2ln"), WORDS),
    st.builds(call, WORDS),
)
CUTS = st.lists(st.integers(0, 5000), max_size=12)


def streams(choices: int) -> st.SearchStrategy[bytes]:
    """Streams of so many choices."""
    held = st.lists(st.lists(PARTS, max_size=3), min_size=1, max_size=choices)
    ends = [candidate(index=index, finishReason="STOP") for index in range(choices)]
    return st.lists(held, max_size=6).map(
        lambda turns: b"".join(
            [
                *(frame(*(candidate(*parts, index=at) for at, parts in enumerate(turn))) for turn in turns),
                frame(*ends),
            ]
        )
    )


@given(streams(2), CUTS)
def test_harmless_bytes_leave_as_they_came(data: bytes, cuts: list[int]) -> None:
    pieces = cut_at(data, cuts)
    assert unjudged(ContentStream(), pieces) == data
    # A line feed that came apart from its carriage return is a frame that says nothing.
    events = [event for event in read(ContentStream(), pieces) if event != Passthrough()]
    assert events == read(ContentStream(), [data])


@given(streams(2), CUTS)
def test_how_the_bytes_were_cut_changes_nothing(data: bytes, cuts: list[int]) -> None:
    def by() -> Guard:
        return guard({"ab": 1.0}, reasoning=REDACT, answer=REDACT, tool_call=REDACT)

    out, report = guarded(cut_at(data, cuts), by(), ContentStream())
    whole, other = guarded([data], by(), ContentStream())
    assert report.ended == other.ended
    for index in range(2):
        assert _unsigned(out, index) == _unsigned(whole, index)
        assert reason_in(out, index) == reason_in(whole, index)


def _unsigned(out: bytes, index: int) -> list[dict[str, Any]]:
    """The parts without signatures, which leave with a part that is whole alone."""
    return [{k: v for k, v in part.items() if k != "thoughtSignature"} for part in parts_in(out, index)]


@given(streams(2), CUTS)
def test_an_abort_lets_nothing_out_behind_the_harm(data: bytes, cuts: list[int]) -> None:
    """What was cleared elsewhere by then depends on when the verdicts came."""
    out, report = guarded(cut_at(data, cuts), guard({"ab": 1.0}), ContentStream())
    _, other = guarded([data], guard({"ab": 1.0}), ContentStream())
    assert report.ended == other.ended
    parts = [parts_in(out, index) for index in range(2)]
    if report.aborted is None:
        assert parts == [parts_in(data, index) for index in range(2)]
    else:
        assert "ab" not in json.dumps(parts)
        assert "SAFETY" in reason_in(out) + reason_in(out, 1)


@given(streams(2), CUTS)
def test_no_text_leaves_before_its_verdict(data: bytes, cuts: list[int]) -> None:
    codec = ContentStream()
    judge = InstantScriptedJudge({})
    by = Guard(judge=judge, policy=guard().policy)
    with by.stream_sync(iter([*map(codec.decode, cut_at(data, cuts)), codec.flush()])) as events:
        while batch := events.next_batch():
            seen = "".join(window.text[window.start :] for window in judge.windows)
            for index in range(2):
                for part in parts_in(codec.encode(batch), index):
                    assert part.get("text", "") in seen


ORIGINS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "a thought": (candidate(thought("x")), [Reasoning("x"), Opaque(OpaqueKind.SUMMARISED)]),
    "an answer": (candidate(said("x")), [Answer("x")]),
    "a signed answer": (
        candidate(said("x", thoughtSignature="AA")),
        [Answer("x"), Opaque(OpaqueKind.ENCRYPTED)],
    ),
    "a signature alone": (candidate(said("", thoughtSignature="AA")), [Opaque(OpaqueKind.ENCRYPTED)]),
    "a call": (candidate(call("a")), [ToolCall('send {"to": "a"}', block=1)]),
    "two calls": (
        candidate(call("a", thoughtSignature="AA"), call("b")),
        [
            ToolCall('send {"to": "a"}', block=1),
            Opaque(OpaqueKind.ENCRYPTED),
            ToolCall('send {"to": "b"}', block=2),
        ],
    ),
    "a call piece by piece": (
        candidate(
            {"functionCall": {"name": "send", "willContinue": True}},
            {
                "functionCall": {
                    "partialArgs": [{"jsonPath": "$.to", "stringValue": "a f"}],
                    "willContinue": True,
                }
            },
            {"functionCall": {"partialArgs": [{"jsonPath": "$.to", "stringValue": "riend"}]}},
        ),
        [ToolCall("send ", block=1), ToolCall("\n$.to a f", block=1), ToolCall("riend", block=1)],
    ),
    "code": (
        candidate(
            {"executableCode": {"language": "PYTHON", "code": "1"}},
            {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
        ),
        [ToolCall("PYTHON\n1\n", block=1), ToolCall("OUTCOME_OK\n1\n", block=2)],
    ),
    "tools of the server": (
        candidate(
            {"toolCall": {"id": "t", "toolType": "SEARCH", "args": {"q": "x"}}},
            {"toolResponse": {"id": "t", "toolType": "SEARCH", "response": {"found": "y"}}},
        ),
        [ToolCall('SEARCH\n{"q": "x"}', block=1), ToolCall('SEARCH\n{"found": "y"}', block=2)],
    ),
    "a call that went wrong": (
        {"finishReason": "MALFORMED_FUNCTION_CALL", "finishMessage": "send(x"},
        [Answer("send(x", block=1), End("MALFORMED_FUNCTION_CALL")],
    ),
    "a search": (
        {
            "groundingMetadata": {
                "webSearchQueries": ["x"],
                "groundingChunks": [{"web": {"uri": "u", "title": "t"}}],
            }
        },
        [ToolCall("x\nt", block=1)],
    ),
    "a field of tomorrow": ({"afterthought": {"summary": "x"}}, [ToolCall("x", block=1)]),
    "metadata": (
        {
            "safetyRatings": [{"category": "C", "probability": "LOW"}],
            "citationMetadata": {"citations": [{"uri": "u", "title": "t"}]},
            "avgLogprobs": -1.0,
        },
        [Passthrough(choice=0)],
    ),
    "an end": ({"finishReason": "STOP"}, [End("STOP")]),
}


@pytest.mark.parametrize(("held", "events"), ORIGINS.values(), ids=ORIGINS.keys())
def test_a_candidate_gives_its_events(held: dict[str, Any], events: list[Any]) -> None:
    assert read(ContentStream(), [frame(held)]) == events
    assert read(ContentBody(), [body(held)]) == events


@pytest.mark.parametrize(
    "raw",
    [
        b": hello\n\n",
        b"\n\n",
        b"data: [DONE]\n\n",
        frame(),
        frame(promptFeedback={"blockReason": "SAFETY", "blockReasonMessage": "no"}),
        b'{\n "error": {\n  "code": 429\n }\n}\n\n',
    ],
    ids=repr,
)
def test_what_holds_no_candidate_passes(raw: bytes) -> None:
    assert read(ContentStream(), [raw]) == [Passthrough()]
    assert unjudged(ContentStream(), [raw]) == raw


@pytest.mark.parametrize(
    "begun", [b"", frame(candidate(said("Well."))), frame(candidate(finishReason="STOP"))]
)
@pytest.mark.parametrize("form", ["data: {}\n\n", "{}\n\n", "{}"])
def test_an_error_in_mid_stream_is_judged_as_it_may_quote_the_model(form: str, begun: bytes) -> None:
    def sent(text: str) -> bytes:
        return form.format(
            json.dumps({"error": {"code": 503, "message": text, "status": "UNAVAILABLE"}})
        ).encode()

    calm, harmful = sent("Busy."), sent("I could not read HARM")
    assert guarded([begun, calm], codec=ContentStream())[0] == begun + calm
    out, report = guarded([begun, harmful], codec=ContentStream())
    assert report.ended is Ended.ABORTED
    assert b"HARM" not in out
    out, report = guarded([begun, harmful], guard(answer=REDACT), ContentStream())
    assert report.ended is Ended.COMPLETE
    assert b"HARM" not in out
    last = json.loads(out.strip().rsplit(b"data: ")[-1])
    assert last == {"error": {"code": 503, "message": NOTICE, "status": "FAILED_PRECONDITION"}}


UNREADABLE: dict[str, bytes] = {
    "an image": frame(candidate({"inlineData": {"mimeType": "image/png", "data": "HARM"}})),
    "a file": frame(candidate({"fileData": {"fileUri": "HARM"}})),
    "a part of tomorrow": frame(candidate({"idea": {"text": "HARM"}})),
    "names in snake case": frame(candidate({"executable_code": {"code": "HARM"}})),
    "two in one": frame(candidate({**call("HARM"), "text": "x"})),
    "a text that is none": frame(candidate({"text": ["HARM"]})),
    "a thought that says more": frame(candidate({"text": "x", "thought": ["HARM"]})),
    "a call that is none": frame(candidate({"functionCall": "HARM"})),
    "content beside parts": frame({"content": {"text": "HARM"}}),
    "content that is none": frame({"content": "HARM"}),
    "a response of tomorrow": frame(thoughts="HARM"),
    "candidates that are none": frame(candidates="HARM"),
    "an index that is none": frame({"index": "HARM"}),
    "no JSON": b"data: HARM\n\n",
    "an array": b'data: ["HARM"]\n\n',
    "an array in lines": b'[{"candidates": [{"content": {"parts": [{"text": "HARM"}]}}]}]\n\n',
    "JSON in lines": body(candidate(said("HARM"))) + b"\n\n",
    "an error and more": b'{"error": {}, "candidates": [{"content": {"parts": [{"text": "HARM"}]}}]}\n\n',
    "the half of it": frame(candidate(said("HARM")))[:-9],
}


@pytest.mark.parametrize("raw", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_cannot_be_read_raises_and_never_leaves(raw: bytes) -> None:
    with pytest.raises(WireError):
        read(ContentStream(), [raw])
    out, report = guarded([raw], codec=ContentStream())
    assert report.aborted is not None
    assert report.aborted.cause == "source"
    assert b"HARM" not in out
    assert parts_in(out) == [said(report.aborted.notice)]


def test_a_stream_that_is_not_server_sent_events_is_refused() -> None:
    endpoint = GEMINI.endpoint("POST", "/v1beta/models/m:streamGenerateContent")
    assert endpoint is not None
    with pytest.raises(WireError, match="content type 'application/json'"):
        endpoint.codec("application/json; charset=UTF-8", read_request(b"{}"), Options())


# -- what is left out --------------------------------------------------------------------------------

FINE = "All is fine here, " * 20 + "and it stays so. "


def test_a_frame_that_is_cut_loses_its_signature_and_keeps_the_rest() -> None:
    held = candidate(thought(FINE + "Not ", thoughtSignature="c2ln"), finishReason="STOP", tokenCount=3)
    out, _ = guarded([frame(candidate(thought("x"))), frame(held)], codec=ContentStream())
    assert b"c2ln" in out
    out, report = guarded(
        [frame(candidate(thought(FINE + "HARM", thoughtSignature="c2ln")))], codec=ContentStream()
    )
    assert report.aborted is not None
    assert b"c2ln" not in out
    assert parts_in(out) == [thought(FINE.rstrip()), said(NOTICE)]
    assert bodies_in(out)[0].keys() == {"candidates", "modelVersion", "responseId"}
    assert bodies_in(out)[-1]["usageMetadata"] == USAGE


def test_a_redaction_drops_all_that_would_say_it_again() -> None:
    spelled = {"chosenCandidates": [{"token": "HARM"}]}
    frames = [
        frame(candidate(thought("A HARM.", thoughtSignature="MQ=="))),
        frame(candidate(said("Well.", thoughtSignature="Mg=="), logprobsResult=spelled)),
        frame(candidate(call("you", thoughtSignature="Mw=="))),
        frame({"groundingMetadata": {"webSearchQueries": ["HARM"]}, "index": 0}),
        frame(candidate(said("", thoughtSignature="NA=="), finishReason="STOP", tokenCount=3)),
    ]
    out, report = guarded(frames, guard(reasoning=REDACT, tool_call=REDACT), ContentStream())
    assert report.aborted is None
    assert parts_in(out) == [thought(NOTICE), said("Well." + NOTICE)]
    assert not any(word in out for word in (b"HARM", b"thoughtSignature", b"logprobs", b"functionCall"))
    last = bodies_in(out)[-1]
    assert last["candidates"] == [
        {
            "finishReason": "STOP",
            "content": {"parts": [said("")], "role": "model"},
            "tokenCount": 3,
            "index": 0,
        }
    ]
    assert last["usageMetadata"] == USAGE


@pytest.mark.parametrize("content", [{}, {"content": None}, {"content": {}}])
def test_a_candidate_without_content_gets_a_notice_in_the_place_of_a_call(content: dict[str, Any]) -> None:
    held = {**content, "groundingMetadata": {"webSearchQueries": ["HARM"]}, "finishReason": "SAFETY"}
    redacts = guard(tool_call=REDACT)
    for out in (
        guarded([frame({**held, "index": 0})], redacts, ContentStream())[0],
        b"data: " + guarded([body({**held, "index": 0})], redacts, ContentBody())[0],
    ):
        (sent,) = candidates_in(out)
        assert sent.pop("content") == {"parts": [said(NOTICE)], "role": "model"}
        assert sent == {"finishReason": "SAFETY", "index": 0}


def test_a_finish_without_content_leaves_as_it_came() -> None:
    data = frame({"finishReason": "SAFETY", "index": 0})
    out, _ = guarded([frame(candidate(said("HARM."))), data], guard(answer=REDACT), ContentStream())
    assert out.endswith(data)
    blocked = {"finishReason": "MALFORMED_FUNCTION_CALL", "finishMessage": FINE + "HARM", "index": 0}
    out, _ = guarded([frame(blocked)], guard(answer=REDACT), ContentStream())
    assert [one["finishMessage"] for one in candidates_in(out)] == [FINE.rstrip() + NOTICE]
    assert reason_in(out) == ["MALFORMED_FUNCTION_CALL"]


def test_what_is_rewritten_keeps_its_order() -> None:
    ahead = {"tokenCount": 3, "urlContextMetadata": {}, "citationMetadata": {}, "safetyRatings": []}
    held = ahead | candidate(thought("HARM"), said("Well."), avgLogprobs=-0.1, finishReason="STOP")
    out, _ = guarded([frame(held)], guard(reasoning=REDACT), ContentStream())
    (sent,) = candidates_in(out)
    assert [*sent] == [*held]


def test_a_turn_that_was_redacted_or_ended_does_not_go_on() -> None:
    token: dict[str, Any] = {"continuationToken": "AA=="}
    last = frame(candidate(said("More."), finishReason="CONTINUATION", **token))
    out, _ = guarded([frame(candidate(said("HARM."))), last], guard(answer=REDACT), ContentStream())
    assert reason_in(out) == ["SAFETY"]
    assert b"continuationToken" not in out
    out, report = guarded([last, b"data: ?\n\n"], codec=ContentStream())
    assert report.aborted is not None
    assert reason_in(out) == ["CONTINUATION", "SAFETY"]
    assert guarded([last], codec=ContentStream())[0] == last


def test_log_probabilities_go_with_the_whole_of_a_text_alone() -> None:
    held = candidate(said(FINE + "HARM."), logprobsResult={"chosenCandidates": [{"token": "HARM"}]})
    out, _ = guarded([frame(held)], codec=ContentStream())
    assert b"HARM" not in out
    data = frame(candidate(said("Fine."), logprobsResult={"chosenCandidates": [{"token": "Fine"}]}))
    assert guarded([data], codec=ContentStream())[0] == data


def test_a_harmful_call_leaves_nothing_of_itself() -> None:
    frames = content(thought("I send."), call("a friend"), call("HARM"))
    out, _ = guarded(frames, codec=ContentStream())
    assert parts_in(out) == [thought("I send."), said(NOTICE)]
    assert reason_in(out) == ["SAFETY"]


def test_a_call_in_pieces_leaves_whole_or_not_at_all() -> None:
    pieces: list[dict[str, Any]] = [
        {"functionCall": {"name": "send", "willContinue": True}},
        {"functionCall": {"partialArgs": [{"jsonPath": "$.to", "stringValue": "HA"}], "willContinue": True}},
        {"functionCall": {"partialArgs": [{"jsonPath": "$.to", "stringValue": "RM"}]}},
    ]
    out, _ = guarded(content(*pieces), codec=ContentStream())
    assert parts_in(out) == [said(NOTICE)]
    data = b"".join(content(*pieces))
    assert guarded([data], guard({}), ContentStream())[0] == data


def test_choices_are_told_apart_and_one_ends_all() -> None:
    frames = [
        frame(candidate(said("A one. ")), candidate(said(FINE), index=1)),
        frame(candidate(said("A two."), finishReason="STOP"), candidate(said("HARM."), index=1)),
    ]
    marks: Any = {"HARM": 1.0}
    out, _ = guarded(frames, guard(marks, answer=REDACT), ContentStream())
    assert parts_in(out) == [said("A one. A two.")]
    assert parts_in(out, 1) == [said(FINE.rstrip() + NOTICE)]
    out, report = guarded(frames, codec=ContentStream())
    assert report.aborted is not None
    assert reason_in(out, 1) == ["SAFETY"]
    assert len(reason_in(out)) == 1


def test_reasoning_that_nothing_is_seen_of_is_reported() -> None:
    hidden = frame(candidate(said("x"), finishReason="STOP"), usageMetadata={"thoughtsTokenCount": 7})
    _, report = guarded([hidden], codec=ContentStream())
    assert report.unobservable == {OpaqueKind.HIDDEN}
    _, report = guarded([frame(candidate(thought("y"))), hidden], codec=ContentStream())
    assert report.unobservable == {OpaqueKind.SUMMARISED}
    _, report = guarded([hidden], guard(on_opaque=OpaqueReasoning.ABORT), ContentStream())
    assert report.aborted is not None


# -- endings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [ContentStream, ContentBody])
def test_an_ending_in_error(codec: Any) -> None:
    held = candidate(said("HARM."))
    data = frame(held) if codec is ContentStream else body(held)
    out, report = guarded([data], codec=codec(termination=Termination.ERROR))
    assert report.aborted is not None
    *finished, last = bodies_in(b"data: " + out.removeprefix(b"data: "))
    assert finished == [{"candidates": [{"finishReason": "SAFETY", "index": 0}]}][: len(finished)]
    assert len(finished) == (codec is ContentStream)
    assert last["error"] == {"code": 400, "message": NOTICE, "status": "FAILED_PRECONDITION"}


def test_output_to_be_parsed_gets_no_notice() -> None:
    frames = content(said('{"a": "fine. '), said('HARM"}'))
    out, _ = guarded(frames, codec=ContentStream(strict_output=True), redactable=False)
    assert NOTICE not in json.dumps(parts_in(out))
    assert candidates_in(out)[-1]["finishMessage"] == NOTICE


def test_what_has_ended_is_not_ended_again() -> None:
    out, report = guarded([*content(said("Well.")), b"data: ?\n\n"], codec=ContentStream())
    assert report.aborted is not None
    assert reason_in(out) == ["STOP"]


def test_an_ending_begins_a_line_of_its_own() -> None:
    codec = ContentStream()
    events = read(codec, [frame(candidate(said("Well."))).rstrip()])
    out = codec.encode(events)  # type: ignore[arg-type]
    out += codec.keep_alive() + guarded([b"data: ?"], codec=codec)[0]
    assert len(bodies_in(out)) == 2


# -- in one piece ------------------------------------------------------------------------------------

ALL = candidate(thought("Fine."), said("é", thoughtSignature="AA"), call("you"), finishReason="STOP")


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_whole_response_leaves_as_it_came(size: int) -> None:
    data = body(ALL, candidate(said("Other."), index=1))
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert guarded(pieces, codec=ContentBody())[0] == data


def test_a_whole_response_without_candidates_leaves_as_it_came() -> None:
    data = body(promptFeedback={"blockReason": "SAFETY"})
    assert guarded([data], codec=ContentBody())[0] == data


def test_a_whole_response_loses_its_thought_and_its_calls() -> None:
    data = body(candidate(thought("All. A HARM."), said("Well."), call("you"), finishReason="STOP"))
    out = json.loads(guarded([data], guard(reasoning=REDACT), ContentBody())[0])
    (held,) = out["candidates"]
    assert held["content"]["parts"] == [thought(NOTICE), said("Well."), said(NOTICE)]
    assert (held["finishReason"], out["usageMetadata"]) == ("STOP", USAGE)


def test_a_text_that_was_cut_and_put_together_is_whole() -> None:
    long = said(FINE * 3, thoughtSignature="AA")
    data = body(candidate(long, finishReason="STOP"), candidate(said("HARM."), index=1, finishReason="STOP"))
    out = json.loads(guarded([data], guard(answer=REDACT), ContentBody())[0])
    assert out["candidates"][0]["content"]["parts"] == [long]
    assert out["candidates"][1]["content"]["parts"] == [said(NOTICE)]


@pytest.mark.parametrize(
    "data", [body(candidate(said("HARM"))), b"not json", b'["HARM"]', body(candidates="HARM")]
)
def test_a_whole_response_ends_as_a_refusal(data: bytes) -> None:
    out, report = guarded([data], codec=ContentBody())
    assert report.aborted is not None
    assert b"HARM" not in out
    (held,) = json.loads(out)["candidates"]
    assert held["content"]["parts"] == [said(report.aborted.notice)]
    assert held["finishReason"] == "SAFETY"


def test_a_body_over_the_limit_is_not_read() -> None:
    with pytest.raises(WireError, match="max_body"):
        read(ContentBody(max_body=10), [body(ALL)])


# -- the request -------------------------------------------------------------------------------------

CHAT: list[dict[str, Any]] = [
    {"parts": [said("Why salt?")]},
    {"role": "model", "parts": [thought("Hm."), call("you")]},
    {"role": "user", "parts": [{"functionResponse": {"name": "send", "response": {}}}]},
]


def request(**more: Any) -> bytes:
    return json.dumps({"contents": CHAT, **more}).encode()


def test_the_query_is_what_a_user_wrote_last() -> None:
    assert read_request(request()).query == "Why salt?"
    more = request(systemInstruction={"parts": [said("Be kind.")]}, cachedContent="cachedContents/1")
    assert read_request(more, history()).query == (
        "system: (history held by the server, not seen)\nsystem: Be kind.\nuser: Why salt?\n"
        "reasoning: Hm.\nassistant: [functionCall]\ntool: [functionResponse]"
    )
    assert read_request(request(system_instruction={"parts": said("Be kind.")}), history()).query.startswith(
        "system: Be kind."
    )
    assert read_request(b'{"contents": {"parts": {"text": "Why?"}}}').query == "Why?"


@pytest.mark.parametrize(
    "config",
    [
        {"responseMimeType": "application/json"},
        {"responseMimeType": "text/x.enum"},
        {"responseSchema": {}},
        {"response_json_schema": {}},
    ],
)
@pytest.mark.parametrize("name", ["generationConfig", "generation_config"])
def test_a_format_admits_no_notice(name: str, config: dict[str, Any]) -> None:
    assert read_request(request(**{name: {"responseMimeType": "text/plain"}})).redactable
    assert not read_request(request(**{name: config})).redactable


@pytest.mark.parametrize("contents", ["HARM", ["HARM"], [{"parts": 1}], [{"parts": ["HARM"]}]])
def test_a_request_that_is_none_raises(contents: Any) -> None:
    with pytest.raises(WireError, match=r"'(contents|parts)' should be a list of objects"):
        read_request(json.dumps({"contents": contents}).encode())


@pytest.mark.parametrize(
    ("method", "path", "harmless"),
    [
        ("GET", "/v1beta/models", True),
        ("GET", "/v1beta/models/m", True),
        ("POST", "/v1beta/models/m:countTokens", True),
        ("POST", "/v1beta/models/m:batchEmbedContents", True),
        ("POST", "/upload/v1beta/files", True),
        ("POST", "/v1beta/models/m:predict", False),
        ("POST", "/v1/projects/p/locations/l/publishers/anthropic/models/c:streamRawPredict", False),
        ("POST", "/v1beta/models/m:batchGenerateContent", False),
        ("POST", "/v1beta/interactions", False),
    ],
)
def test_what_is_done_decides_what_is_harmless(method: str, path: str, harmless: bool) -> None:
    assert GEMINI.is_harmless(method, path) is harmless
