"""Recorded streams, played again: the same to the last character, whoever drove them."""

import gc
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shieldguard import (
    Action,
    Answer,
    ConfigError,
    CutBy,
    End,
    Ended,
    Guard,
    JudgeError,
    JudgeTimeout,
    Opaque,
    OpaqueKind,
    Passthrough,
    Policy,
    Reasoning,
    Received,
    Relabel,
    Release,
    ReleasedEvent,
    RiskCategory,
    RiskLevel,
    Rule,
    SentenceWindower,
    SizeWindower,
    SourceError,
    SourceEvent,
    StreamReport,
    ToolCall,
    UnparsedVerdict,
    Verdict,
)
from shieldguard.evaluation.asking import Asked, StoredVerdicts
from shieldguard.evaluation.borders import Borders
from shieldguard.evaluation.replay import RecordingDiffers, Under, again, under
from shieldguard.evaluation.timeline import output, timeline
from shieldguard.recording import Recorder, Recording, read
from shieldguard.recording.coding import (
    event_of,
    outcome_of,
    plain_event,
    plain_outcome,
    plain_policy,
    policy_of,
)
from shieldguard.testing import InstantScriptedJudge, ScriptedJudge, scripted_stream
from tests.promises import rig

HARMLESS = "The kettle hums while rain taps on the glass. "
SOURCE: list[SourceEvent] = [Reasoning(HARMLESS * 2) for _ in range(6)]


def recorded(
    source: Sequence[Any],
    folder: Path,
    *,
    judge: ScriptedJudge | None = None,
    policy: Policy | None = None,
    windower: Any = None,
    kind: str = "sync",
    leave_after: int | None = None,
) -> tuple[list[ReleasedEvent], StreamReport, Recording]:
    """What left a guarded stream, its report and its recording."""
    recorder = Recorder(folder / "streams.jsonl")
    guard = Guard(
        judge=judge or InstantScriptedJudge({"HARM": 1.0, "DOUBT": 0.5}),
        policy=policy or Policy(),
        windower=windower or SentenceWindower(),
        observers=[recorder],
    )
    left: list[ReleasedEvent] = []

    async def drive() -> StreamReport:
        stream = guard.stream(scripted_stream(source), query="a question")

        async def consume() -> None:
            try:
                async for event in stream:
                    left.append(event)
                    if leave_after is not None and len(left) >= leave_after:
                        break
            except RuntimeError:
                pass

        if kind == "pump":
            async with stream:
                await consume()
        else:
            await consume()
            await stream.aclose()
        return await stream.final_report()

    if kind == "sync":
        with guard.stream_sync(source, query="a question") as stream:
            for event in stream:
                left.append(event)
                if leave_after is not None and len(left) >= leave_after:
                    break
        report = stream.final_report()
    else:
        report = anyio.run(drive)
    recorder.close()
    (recording,) = read(folder / "streams.jsonl")
    return left, report, recording


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("kind", ["sync", "async", "pump"])
def test_a_recording_played_again_is_the_stream_that_was(kind: str, data: st.DataObject) -> None:
    """Under the recorded policy: the same events, to the last character, the same windows, the same end."""
    play = data.draw(rig.plays(*Release, failing_open=True))
    leave_after = data.draw(st.none() | st.integers(1, 5))
    kind_of_judge = data.draw(st.sampled_from([InstantScriptedJudge, ScriptedJudge]))
    with TemporaryDirectory() as folder:
        left, report, recording = recorded(
            play.source,
            Path(folder),
            judge=kind_of_judge(rule=rig.verdict_on),
            policy=play.policy,
            windower=play.windower,
            kind=kind,
            leave_after=leave_after,
        )
    played = again(recording, play.windower)
    left_again = [plain_event(event) for event in played.events]
    assert left_again[: len(left)] == [plain_event(event) for event in left]
    if leave_after is None:  # what was taken and not yet read is given up on leaving
        assert len(left_again) == len(left)
    assert played.report.ended is report.ended
    assert [_seen(window) for window in played.report.windows] == [_seen(one) for one in report.windows]
    for channel in ("reasoning", "answer", "tool_call"):
        assert getattr(played.report, channel) == getattr(report, channel)
    assert _plain(played.report.aborted) == _plain(report.aborted)


def _seen(window: Any) -> tuple[Any, ...]:
    error = window.error and (type(window.error), str(window.error))
    where = (window.channel, window.choice, window.block, window.start, window.end)
    return (*where, window.action, window.cut_by, window.joined, window.latency, window.verdict, error)


def _plain(aborted: Any) -> Any:
    return aborted and (aborted.cause, aborted.notice, aborted.channel, aborted.choice, str(aborted.error))


HARMFUL_SOURCE = [*SOURCE, Reasoning("Now HARM is planned in this sentence. " + HARMLESS * 4), *SOURCE]


def scored(window: Any) -> Verdict:
    """Level 1 from P(1) = 0.5; the word MAYBE has 0.3."""
    p = 0.9 if "HARM" in window.new else 0.3 if "MAYBE" in window.new else 0.1
    level = RiskLevel.HARMFUL if p >= 0.5 else RiskLevel.SAFE
    odds = {RiskLevel.SAFE: 1 - p, RiskLevel.POTENTIAL: 0.0, RiskLevel.HARMFUL: p}
    return Verdict(level=level, judge="scored", probabilities=odds)


def test_another_release_mode_lets_out_what_hold_withheld(tmp_path: Path) -> None:
    _, report, recording = recorded(HARMFUL_SOURCE, tmp_path)
    assert report.ended is Ended.ABORTED
    lagging = under(recording, Under(policy=Policy(release=Release.LAG, max_unjudged=100_000)))
    assert lagging.report.ended is Ended.ABORTED
    assert "HARM" in output(lagging)
    assert "HARM" not in output(again(recording))
    assert lagging.report.reasoning.exposed > 0


def test_a_lower_threshold_stops_where_the_recorded_one_did_not(tmp_path: Path) -> None:
    source = [*SOURCE, Reasoning("MAYBE this is meant otherwise. " + HARMLESS * 4), *SOURCE]
    _, report, recording = recorded(source, tmp_path, judge=InstantScriptedJudge(rule=scored))
    assert report.ended is Ended.COMPLETE
    played = under(recording, Under(borders=Borders(harmful=0.25)))
    assert played.report.ended is Ended.ABORTED
    assert "MAYBE" not in output(played)
    assert under(recording, Under(borders=Borders(harmful=0.31))).report.ended is Ended.COMPLETE


def test_what_an_aborted_recording_does_not_know_is_said(tmp_path: Path) -> None:
    _, report, recording = recorded(HARMFUL_SOURCE, tmp_path, judge=InstantScriptedJudge(rule=scored))
    last = report.windows[-1]
    played = under(recording, Under(borders=Borders(harmful=0.95)))
    assert played.unknown is not None
    assert played.unknown.start == last.end
    assert played.report.aborted is None
    assert "the recording ends" in timeline(played)[-1].says


def test_other_windows_need_a_judge(tmp_path: Path) -> None:
    _, _, recording = recorded(SOURCE, tmp_path)
    smaller = SizeWindower(size=50)
    with pytest.raises(ConfigError, match=r"no verdict on characters 0 to 50 .*--judge"):
        under(recording, Under(windower=smaller))
    asked = Asked(StoredVerdicts(InstantScriptedJudge({"kettle": 1.0})), latency=0.01)
    played = under(recording, Under(windower=smaller, ask=asked))
    assert played.report.ended is Ended.ABORTED
    assert [(one.start, one.end) for one in played.report.windows] == [(0, 50)]
    assert played.report.windows[0].latency == pytest.approx(0.01)


def test_thresholds_need_probabilities(tmp_path: Path) -> None:
    _, _, recording = recorded(SOURCE, tmp_path)
    with pytest.raises(ConfigError, match="gave no probabilities"):
        under(recording, Under(borders=Borders(harmful=0.5)))


def test_replaying_is_the_same_each_time(tmp_path: Path) -> None:
    _, _, recording = recorded(HARMFUL_SOURCE, tmp_path, judge=ScriptedJudge({"HARM": 1.0}), kind="pump")
    other = Under(policy=Policy(release=Release.LAG, max_unjudged=300))
    first, second = under(recording, other), under(recording, other)
    assert (first.taken, first.judged) == (second.taken, second.judged)
    assert again(recording).taken == again(recording).taken


def test_the_source_of_a_recording_can_be_guarded_again(tmp_path: Path) -> None:
    _, _, recording = recorded(SOURCE, tmp_path)
    guard = Guard(judge=InstantScriptedJudge({}))
    with guard.stream_sync(recording.source(), query=recording.query) as stream:
        assert "".join(event.text for event in stream if isinstance(event, Reasoning)) == HARMLESS * 12
    assert recording.query == "a question"
    assert [at for at, _ in recording.arrivals()] == sorted(at for at, _ in recording.arrivals())


def test_a_recording_that_was_changed_is_found_out(tmp_path: Path) -> None:
    recorded(HARMFUL_SOURCE, tmp_path)
    file = tmp_path / "streams.jsonl"
    file.write_text(file.read_text().replace("rain", "snow"))
    with pytest.raises(RecordingDiffers, match="another text"):
        again(read(file)[0])
    file.write_text(file.read_text().replace('"level": 1.0', '"level": 0.0'))
    with pytest.raises(RecordingDiffers):
        again(read(file)[0])


@pytest.mark.parametrize("kind", ["sync", "pump"])
def test_a_source_that_fails_is_recorded_with_its_end(kind: str, tmp_path: Path) -> None:
    error = SourceError("broken frame")

    def failing() -> Iterator[SourceEvent]:
        yield SOURCE[0]
        raise error

    source: Any = failing() if kind == "sync" else [SOURCE[0], error]
    _, report, recording = recorded(source, tmp_path, kind=kind)
    assert report.ended is Ended.ABORTED
    assert recording.cause == "source"
    assert again(recording).report.ended is Ended.ABORTED


def test_one_file_holds_many_streams_and_a_folder_one_file_each(tmp_path: Path) -> None:
    for per_stream in (False, True):
        place = tmp_path / ("folder" if per_stream else "all.jsonl")
        recorder = Recorder(place, per_stream=per_stream)
        guard = Guard(judge=InstantScriptedJudge({}), observers=[recorder])
        streams = [guard.stream_sync([Reasoning(f"Thought {number}. ")]) for number in range(3)]
        for stream in streams:
            list(stream)
        recorder.close()
        recorder.close()
        recordings = read(place)
        assert {one.stream for one in recordings} == {stream.report.stream for stream in streams}
        assert sorted(output(again(one)) for one in recordings) == [f"Thought {n}. " for n in range(3)]
    files = sorted((tmp_path / "folder").glob("*.jsonl"))
    assert len(files) == 3
    assert all(file.stat().st_mode & 0o077 == 0 for file in [*files, tmp_path / "all.jsonl"])


def test_a_recorder_that_is_let_go_blocks_no_loop(tmp_path: Path) -> None:
    guards = [Guard(judge=ScriptedJudge({}), observers=[Recorder(tmp_path / "all.jsonl")])]

    async def main() -> None:
        async with guards.pop().stream(scripted_stream("A thought. ")) as stream:
            [event async for event in stream]
        del stream
        gc.collect()
        with anyio.fail_after(20):
            while any(thread.name == "recorder" for thread in threading.enumerate()):  # noqa: ASYNC110
                await anyio.sleep(0.01)

    anyio.run(main)
    assert '"closed"' in (tmp_path / "all.jsonl").read_text()


def test_without_a_recorder_nothing_of_a_stream_is_told() -> None:
    class Listener:
        def window_judged(self, event: Any) -> None: ...

        def stream_closed(self, report: Any) -> None: ...

    guard = Guard(judge=InstantScriptedJudge({}), observers=[Listener()])
    assert len(list(guard.stream_sync(SOURCE))) == len(SOURCE)


def test_a_cut_off_last_line_is_left_out_and_the_rest_is_played(tmp_path: Path) -> None:
    recorded(SOURCE, tmp_path)
    file = tmp_path / "streams.jsonl"
    text = file.read_text()
    file.write_text(text[: text.rindex('{"stream"') + 20])
    (recording,) = read(file)
    assert recording.ended is None
    assert output(again(recording)) == HARMLESS * 12


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no recorded stream"),
        ("not JSON\n{}\n", "line 1"),
        ('{"step": "opened"}\n\n', "line 1"),
        ('{"stream": "a", "step": "received", "at": 1}\n', "'a'.*begins with 'received'"),
        ('{"stream": "a", "step": "opened", "at": 1, "format": "shieldguard-recording-9"}\n', "format"),
    ],
)
def test_what_is_no_recording_is_refused(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        read(file)


def test_places_that_cannot_be_written_to_or_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot record"):
        Recorder(tmp_path / "file" / "below.jsonl")
    with pytest.raises(ConfigError, match="cannot record"):
        Recorder(tmp_path / "file", per_stream=True)
    with pytest.raises(ConfigError, match="cannot read"):
        read(tmp_path / "absent.jsonl")


class EveryTen:
    def cut(self, text: str, start: int) -> int:
        return start + 10 if len(text) >= start + 10 else 0


def test_a_windower_of_ones_own_is_asked_for(tmp_path: Path) -> None:
    _, report, recording = recorded(SOURCE, tmp_path, windower=EveryTen())
    with pytest.raises(ConfigError, match="EveryTen"):
        again(recording)
    assert len(again(recording, EveryTen()).report.windows) == len(report.windows)


def test_every_kind_of_event_and_verdict_comes_back_as_it_was() -> None:
    events: list[SourceEvent] = [
        Reasoning("a", choice=1, block=2),
        Answer("b", tentative=True),
        ToolCall("c"),
        Opaque(OpaqueKind.SUMMARISED, choice=1),
        Passthrough("d", choice=None),
        Passthrough("", choice=0),
        Relabel(choice=3),
        End("stop"),
        Reasoning("\ud800 half of a pair"),
    ]
    for event in events:
        assert event_of(json.loads(json.dumps(plain_event(event)))) == event
    odds = {RiskLevel.SAFE: 0.1, RiskLevel.POTENTIAL: 0.2, RiskLevel.HARMFUL: 0.7}
    verdict = Verdict(
        level=RiskLevel.HARMFUL, judge="j", probabilities=odds, category=RiskCategory.HATE, analysis="so"
    )
    assert outcome_of(json.loads(json.dumps(plain_outcome(verdict)))) == verdict
    for error in (JudgeError("a"), JudgeTimeout("b"), UnparsedVerdict("c")):
        back = outcome_of(json.loads(json.dumps(plain_outcome(error))))
        assert (type(back), str(back)) == (type(error), str(error))
    policy = Policy(answer=None, release=Release.LAG, max_wait=None, abort_hits=2, abort_within=3)
    assert policy_of(json.loads(json.dumps(plain_policy(policy)))) == policy


def test_the_weight_of_frames_is_recorded_and_cuts_at_the_same_places(tmp_path: Path) -> None:
    source = [Received([Reasoning("A few words ")], 400) for _ in range(6)]
    policy = Policy(max_held_bytes=1000, max_wait=None)
    left, report, recording = recorded(source, tmp_path, policy=policy)
    assert [window.cut_by for window in report.windows] == [CutBy.BOUND, CutBy.BOUND]
    played = again(recording)
    assert [plain_event(event) for event in played.events] == [plain_event(event) for event in left]
    assert [_seen(window) for window in played.report.windows] == [_seen(one) for one in report.windows]


@pytest.mark.parametrize("kind", ["sync", "async", "pump"])
def test_what_is_left_out_without_a_word_is_counted_alike(kind: str, tmp_path: Path) -> None:
    policy = Policy(reasoning=Rule(harmful=Action.REDACT), join_after=0.0, max_wait=None)
    _, report, recording = recorded(
        [Reasoning("a"), Reasoning("HARM. ")],
        tmp_path,
        judge=InstantScriptedJudge(rule=rig.verdict_on),
        policy=policy,
        windower=SentenceWindower(shortest=6, longest=18),
        kind=kind,
    )
    assert again(recording).report.reasoning == report.reasoning
    assert report.reasoning.redacted == 7
