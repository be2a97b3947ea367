"""The figures of streams, against those counted by hand."""

import math
from dataclasses import replace

import pytest

from shieldguard import JudgeError, Policy, Release, SizeWindower
from shieldguard.evaluation.asking import Asked, AskedInTurn, StoredVerdicts
from shieldguard.evaluation.compounding import compounding
from shieldguard.evaluation.frontier import Point, frontier, settings
from shieldguard.evaluation.labelled import LabelledStream
from shieldguard.evaluation.stream_evaluation import evaluate
from shieldguard.evaluation.stream_figures import Spread, detections, figures
from shieldguard.evaluation.streams import Outcome, Pace, Setting, everything_judged, run
from shieldguard.testing import InstantScriptedJudge
from tests.streams.traces import SPAN, WordJudge, harmful, harmless, many

PACE = Pace(chunk=12, speed=120.0)  # a piece each 0.1 s

# Windows end at 60, 120, 180, 240 and 300. Onsets are at 120, the beginning of the third window.
STREAMS = [
    harmful("in its window", onset=10, word_at=10),  # stopped at 180, 60 behind
    harmful("a window late", onset=10, word_at=16),  # stopped at 240, 120 behind
    harmful("premature", onset=10, word_at=3),  # stopped at 60
    harmful("missed", onset=10, word_at=None),
]


def setting(**policy: object) -> Setting:
    return Setting(
        name="a setting",
        policy=Policy(max_wait=None, **policy),  # type: ignore[arg-type]
        windower=SizeWindower(size=SPAN),
        ask=Asked(StoredVerdicts(WordJudge()), latency=0.05),
    )


def played(streams: list[LabelledStream], **policy: object) -> list[Outcome]:
    return run(streams, setting(**policy), PACE)


def test_timeliness_in_both_countings() -> None:
    time = figures("", played(STREAMS)).timeliness
    assert (time.premature.hits, time.at_all.hits, time.at_all.of) == (1, 3, 4)
    hits, misses = time.behind[250]
    assert (hits.hits, misses.hits) == (3, 2)
    # The onset's sentence is 12 characters long, and a window 60.
    assert [share.hits for share in time.in_sentence or ()] == [1, 0]
    assert time.later.hits == 2
    assert {n: (a.hits, b.hits) for n, (a, b) in time.sentences.items()} == {1: (1, 0), 2: (1, 0)}
    as_0, as_misses = time.delays["characters"]
    assert as_0.p50 == 60  # of 0, 60, 120, never
    assert as_misses.p50 == 120
    assert math.isinf(as_misses.p90)
    # The sentences of the onset, of 180 and of 240 are the 11th, the 15th and the 20th.
    assert [one.p50 for one in time.delays["sentences"]] == [4, 9]
    assert time.tokens == {}


def test_sentences_and_tokens_behind_the_onset() -> None:
    stream = replace(harmful("short windows", onset=10, word_at=12), tokens=[6 * (n + 1) for n in range(50)])
    one = Setting(name="", policy=Policy(max_wait=None), windower=SizeWindower(size=12), ask=setting().ask)
    time = figures("", run([stream], one, PACE)).timeliness
    # Stopped at 156: its sentence is the 13th, the onset's the 11th, from 120 to 132. Tokens end each 6.
    assert {n: b.hits for n, (_, b) in time.sentences.items()} == {1: 0, 2: 1}
    assert [share.hits for share in time.in_sentence or ()] == [0, 0]
    assert {n: b.hits for n, (_, b) in time.tokens.items()} == {32: 1, 64: 1, 128: 1, 256: 1}
    assert {unit: both[1].p50 for unit, both in time.delays.items()} == {
        "characters": 36,
        "sentences": 2,
        "tokens": 6,
        "seconds": pytest.approx(0.25),
    }


def test_where_sentences_are_not_known_nothing_is_counted_by_them() -> None:
    stream = replace(harmful("no sentences", onset=10, word_at=12), sentences=(), harm_until=None)
    time = figures("", played([stream])).timeliness
    assert (time.in_sentence, time.sentences, time.tokens) == (None, {}, {})
    assert (time.at_all.hits, list(time.delays)) == (1, ["characters", "seconds"])


def test_exposure_and_the_time_from_onset_to_abort() -> None:
    found = figures("", played(STREAMS))
    # In mode hold a stream that is stopped at 240 has let out up to 180: 60 characters behind the onset.
    # The missed one lets out 180.
    assert found.exposed.mean == (0 + 60 + 0 + 180) / 4
    assert (found.clean.hits, found.clean.of) == (2, 4)
    # The onset's character comes at 1.1 s; the windows end at 1.5 and 2.0 s; a verdict takes 50 ms.
    as_0, as_misses = found.timeliness.delays["seconds"]
    assert [as_0.p50, as_misses.p50] == pytest.approx([0.45, 0.95])
    assert math.isinf(as_misses.p90)
    # Of 300 characters 180, 240 and 60 had been written.
    assert found.timeliness.saved.mean == pytest.approx((0.4 + 0.2 + 0.8) / 3)
    assert found.timeliness.saved_of_all.mean == pytest.approx((0.4 + 0.2 + 0.8) / 4)


def test_a_lag_exposes_more_and_delays_less() -> None:
    held, lagging, shadow = (
        figures("", played(STREAMS, release=release, max_unjudged=36))
        for release in (Release.HOLD, Release.LAG, Release.SHADOW)
    )
    assert held.exposed.mean < lagging.exposed.mean < shadow.exposed.mean == 180
    assert (lagging.timeliness.at_all.hits, shadow.timeliness.at_all.hits) == (3, 0)
    calm = [harmless("calm", "ordinary")]
    delays = [
        figures("", played(calm, release=release, max_unjudged=36)).delay.mean
        for release in (Release.HOLD, Release.LAG, Release.SHADOW)
    ]
    assert delays[0] > delays[1] > delays[2] == 0


def test_latency_of_a_harmless_stream() -> None:
    found = figures("", played([harmless("calm", "ordinary", pieces=10, answer="So. " * 3)]))
    # Windows end at 0.5 and 1.0 s. Their five pieces came 0.4 to 0.0 s earlier; verdicts take 50 ms.
    assert found.added_reasoning.mean == pytest.approx(0.45)
    # The answer comes at 1.1 s and is judged at its end, as it is short.
    assert found.added_answer.mean == pytest.approx(0.05)
    assert found.delay.mean == pytest.approx((2 * 5 * 0.25 + 0.05) / 11)
    assert found.stalls.p50 == pytest.approx(0.5)
    assert found.lags.p50 == pytest.approx(0.05)


def test_false_aborts_by_stratum_and_where_they_come_from() -> None:
    streams = [
        harmless("a", "ordinary", word="nurgal"),
        harmless("b", "ordinary", answer="nurgal " * 10),
        harmless("c", "ordinary"),
        harmless("d", "sensitive"),
    ]
    found = figures("", played([*streams, *STREAMS]))
    assert {name: (one.hits, one.of) for name, one in found.false_aborts.items()} == {
        "ordinary": (2, 3),
        "sensitive": (0, 1),
    }
    assert found.in_answers == {"ordinary": 1}
    assert found.strata == {"ordinary": 3, "sensitive": 1, "harmful": 4}
    low, high = found.false_aborts["ordinary"].low, found.false_aborts["ordinary"].high
    assert (round(low, 3), round(high, 3)) == (0.094, 0.992)


def test_detection_by_the_share_of_a_trace_that_has_come() -> None:
    streams = [*STREAMS, harmless("refused", "refused", word="nurgal"), harmless("ordinary", "ordinary")]
    judged = run(streams, everything_judged(setting()), PACE)
    found = {(one.level, one.prefix): one for one in detections(judged)}
    # The ordinary one has no label of its own. At 75 % (225) windows up to 180 have ended.
    assert (found[1.0, 1.0].table.hits, found[1.0, 1.0].table.misses) == (3, 1)
    assert (found[1.0, 1.0].table.false_alarms, found[1.0, 1.0].table.passes) == (1, 0)
    assert found[1.0, 0.75].table.hits == 2
    assert found[1.0, 0.25].table.hits == 1
    assert found[1.0, 0.1].table.hits == 0


def test_a_window_without_a_verdict_is_wrong_and_aborts() -> None:
    judge = InstantScriptedJudge(rule=lambda window: JudgeError("no verdict"))
    one = Setting(
        name="", policy=Policy(), windower=SizeWindower(size=SPAN), ask=Asked(StoredVerdicts(judge))
    )
    found = figures("", run([harmless("a", "ordinary")], one, PACE))
    assert (found.failed, found.false_aborts["ordinary"].hits) == (1, 1)
    judged = run([harmful("b", onset=1, word_at=1)], everything_judged(one), PACE)
    (whole,) = (d for d in detections(judged) if d.level == 1 and d.prefix == 1)
    assert (whole.unjudged, whole.table.misses) == (1, 1)


def test_how_alarms_add_up() -> None:
    # Windows of 60: ten streams of five windows, two with an alarm in the third; five of two, without.
    streams = [harmless(f"long {n}", "ordinary", word="nurgal" if n < 2 else "") for n in range(10)]
    streams += [harmless(f"short {n}", "ordinary", pieces=10) for n in range(5)]
    judged = run(streams, everything_judged(setting()), PACE)
    found = compounding("ordinary", judged, 1.0)
    assert (found.streams, found.windows, found.alarms) == (15, 60, 2)
    curve = {n: (at_risk, measured, independent) for n, at_risk, measured, independent in found.curve}
    assert curve[2] == pytest.approx((15, 0.0, 1 - (1 - 2 / 60) ** 2))
    assert set(curve) == {1, 2}  # behind that fewer than all 15 are there, which is too few of so few


def test_streams_that_have_ended_are_no_longer_at_risk() -> None:
    # Twenty streams of five windows, four with an alarm in the third; five that end before.
    streams = [harmless(f"long {n}", "ordinary", word="nurgal" if n < 4 else "") for n in range(20)]
    streams += [harmless(f"short {n}", "ordinary", pieces=10) for n in range(5)]
    found = compounding("ordinary", run(streams, everything_judged(setting()), PACE), 1.0)
    curve = {n: (at_risk, measured) for n, at_risk, measured, _ in found.curve}
    assert curve == {1: (25, 0.0), 2: (25, 0.0), 3: (20, pytest.approx(0.2)), 5: (16, pytest.approx(0.2))}


def test_spreads() -> None:
    found = Spread.over([(1.0, 98), (5.0, 1), (9.0, 1)])
    assert (found.count, found.mean, found.p50, found.p90, found.p99) == (100, 1.12, 1.0, 1.0, 5.0)
    assert Spread.over([3.0, 1.0, 2.0]).p50 == 2.0
    assert math.isnan(Spread.over([]).mean)


def test_the_frontier_marks_what_nothing_beats() -> None:
    calm = figures("calm", played([harmless("a", "ordinary"), *STREAMS]))
    slower = replace(calm, delay=replace(calm.delay, mean=calm.delay.mean + 1))
    other = replace(slower, exposed=replace(calm.exposed, mean=0.0))
    points = frontier([Point(kind="threshold", figures=one) for one in (calm, slower, other)])
    assert [point.best for point in points] == [True, False, True]


def test_the_policies_around_one_move_what_they_say() -> None:
    verdicts = StoredVerdicts(WordJudge())
    streams = [*many("ordinary", 50, 3), *STREAMS]
    around = settings(verdicts, streams, Policy(max_wait=None), SizeWindower(size=SPAN), latency=0.0)
    kinds = {one.kind for one in around}
    assert kinds == {"as configured", "threshold", "window", "release", "debounce", "shadow"}
    found = {one.name: figures(one.name, run(streams, one, PACE)) for one in around}
    # Three of fifty score 0.6, and two may: the thresholds for 50 of 1,000 and fewer are all just above.
    assert [one.name for one in around if one.kind == "threshold"] == ["P(1) ≥ 0.600"]
    assert found["P(1) ≥ 0.600"].false_aborts["ordinary"].hits == 0
    assert found["P(1) ≥ 0.600"].timeliness.at_all.hits == 3
    assert found["as configured: hold"].exposed.mean < found["lag 200"].exposed.mean
    assert found["2 of 2"].timeliness.at_all.hits == 0  # one window alone is harmful in each
    assert all(one.timeliness.at_all.hits == 0 for name, one in found.items() if name == "shadow")


def test_a_cascade_asks_the_second_judge_where_the_first_doubts() -> None:
    screen = Asked(StoredVerdicts(WordJudge(harmful=0.5)), latency=0.01)
    second = StoredVerdicts(WordJudge())
    ask = AskedInTurn(screen, Asked(second, latency=0.2), threshold=0.5)
    one = Setting(name="", policy=Policy(max_wait=None), windower=SizeWindower(size=SPAN), ask=ask)
    outcomes = run([harmless("a", "ordinary", word="flimmer"), STREAMS[0]], one, PACE)
    assert [outcome.aborted for outcome in outcomes] == [False, True]
    assert len(second) == 2
    assert max(outcomes[0].lags) == pytest.approx(0.21)
    assert min(outcomes[0].lags) == pytest.approx(0.01)


def test_verdicts_are_asked_for_once_and_give_the_same_figures() -> None:
    judge = InstantScriptedJudge({"nurgal": 1.0})
    streams = [*many("ordinary", 6, 0), *STREAMS]
    verdicts = StoredVerdicts(judge)
    found = [
        evaluate(streams, verdicts, Policy(max_wait=None), SizeWindower(size=SPAN), pace=PACE, latency=0.01)
        for _ in range(2)
    ]
    # The real guard, which is played for its closing time, asks the judge itself, on streams of its own.
    ours = {stream.id for stream in streams}
    stored = [window for window in judge.windows if window.stream in ours]
    asked = [(window.query, window.text, window.start) for window in stored]
    assert len(asked) == len(set(asked)) == len(verdicts)
    first, second = found
    assert first.figures == second.figures
    assert [point.figures for point in first.points] == [point.figures for point in second.points]
    assert first.closing is not None
    assert first.closing.same == first.closing.streams == 3
