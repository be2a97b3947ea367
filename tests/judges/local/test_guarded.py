"""The whole way: a checkpoint, the guard, and the real SDK against a loopback server."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("openai")
pytest.importorskip("starlette")

from shieldguard import Answer, Cascade, Ended, Guard, Judge, Policy, RiskCategory, RiskLevel, SizeWindower
from shieldguard.config import GuardConfig
from shieldguard.judges.embedded import EmbeddedJudge
from shieldguard.judges.local import LocalJudge
from tests.clients.rig import PROGRAMS, ask
from tests.judges.local.tiny import CALM, DOUBT, HARM
from tests.upstream import Script, Upstream, chat, serve

CALM_TEXT = " ".join(CALM)
PATIENT = Policy(judge_timeout=60)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with serve() as upstream:
        yield upstream


def thought(*, with_word: str = "") -> list[str]:
    text = f"{CALM_TEXT}. " * 6 + with_word + f" {CALM_TEXT}. " * 3
    return [text[at : at + 13] for at in range(0, len(text), 13)]


@pytest.fixture(params=["fast", "full", "fast, then full", "embedded, then fast"])
def judge(request: pytest.FixtureRequest, fast: LocalJudge) -> Judge:
    judges: dict[str, Judge] = {
        "fast": fast,
        "full": fast.in_mode("full"),
        "fast, then full": Cascade(fast, fast.in_mode("full")),
        "embedded, then fast": Cascade(EmbeddedJudge(), fast, threshold=0.0),
    }
    return judges[request.param]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_stream_aborts_and_passes_as_its_thought_is(program: str, judge: Judge, upstream: Upstream) -> None:
    guard = Guard(judge=judge, policy=PATIENT, windower=SizeWindower(size=300))
    for word, ended in (("", Ended.COMPLETE), (DOUBT, Ended.COMPLETE), (HARM, Ended.ABORTED)):
        upstream.play(Script(chat(thought(with_word=word), ["Bread ", "cools."])))
        outcome = ask(program, "create", upstream, guard)
        assert outcome.account.ended is ended
        assert outcome.account.failures == 0
        assert (outcome.content.get(0) == "Bread cools.") is (ended is Ended.COMPLETE)
        assert HARM not in outcome.reasoning[0]
        assert outcome.account.level == {"": 0.0, DOUBT: 0.5, HARM: 1.0}[word]


def test_a_confirmed_abort_has_its_category_and_analysis(fast: LocalJudge) -> None:
    guard = Guard(judge=Cascade(fast, fast.in_mode("full")), policy=PATIENT)
    with guard.stream_sync([*thought(with_word=HARM)], query="What hums?", thinking="preopened") as stream:
        assert not any(isinstance(event, Answer) for event in stream)
    found = [window.verdict for window in stream.report.windows if window.verdict]
    assert (found[-1].level, found[-1].category) == (RiskLevel.HARMFUL, RiskCategory.CYBERSECURITY)
    assert found[-1].analysis.startswith("The thought gives steps.")
    assert found[-1].confirmed


def test_what_a_stream_leaves_behind_is_freed(checkpoint: Path, upstream: Upstream) -> None:
    judge = LocalJudge(checkpoint, dtype="float32")
    upstream.play(Script(chat(thought(), ["Bread."])))
    for _ in range(3):
        ask("sync", "create", upstream, Guard(judge=judge, policy=PATIENT))
    for _ in range(2000):  # the judge's thread is told of the end, and comes to it
        if not judge.usage.texts:
            break
        time.sleep(0.01)
    assert judge.usage.texts == judge.usage.bytes == 0
    judge.close()


def test_a_configuration_makes_such_a_guard(checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "guard.toml"
    file.write_text(
        f'judge = "local"\n[judge_options]\ncheckpoint = "{checkpoint}"\ndtype = "float32"\nharmful = 0.4\n'
    )
    guard = GuardConfig.load(file).build()
    with guard.stream_sync(["<think>", *thought(with_word=HARM), "</think>Bread."]) as stream:
        list(stream)
    assert stream.report.ended is Ended.ABORTED


def test_a_configuration_makes_a_cascade(checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "guard.toml"
    file.write_text(
        'judge = "cascade"\n[policy]\njudge_timeout = 60\n[judge_options]\n'
        'screen = { judge = "embedded" }\n'
        f'confirm = {{ judge = "local", checkpoint = "{checkpoint}", mode = "full" }}\nthreshold = 0.0\n'
    )
    with GuardConfig.load(file).build().stream_sync(["<think>", *thought(with_word=HARM)]) as stream:
        list(stream)
    assert stream.report.ended is Ended.ABORTED
