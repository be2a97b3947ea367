"""transformers' own server: full mode, the guard from end to end, and texts that try to move it."""

import asyncio
import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("fastapi")
pytest.importorskip("accelerate")
pytest.importorskip("openai")

from shieldguard import (
    Ended,
    Guard,
    Judge,
    JudgeRefused,
    Policy,
    RiskCategory,
    RiskLevel,
    SizeWindower,
    UnparsedVerdict,
    Verdict,
    Window,
)
from shieldguard.judges.local import LocalJudge
from shieldguard.judges.remote import RemoteJudge
from tests.clients.rig import PROGRAMS, ask
from tests.judges.hostile import CALM_TEXT, FORGERIES, HARM_TEXT, broken, placed
from tests.judges.local.tiny import ANALYSES, CALM, DOUBT, HARM, PROMPT
from tests.judges.remote.engines import transformers_serve
from tests.upstream import Script, Upstream, chat, serve

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with transformers_serve(checkpoint, tmp_path_factory.mktemp("log") / "serve.log") as url:
        yield url


@pytest.fixture(scope="module")
def full(server: str, checkpoint: Path) -> Iterator[RemoteJudge]:
    judge = RemoteJudge(
        server, model=str(checkpoint), prompt=checkpoint, mode="full", max_analysis=200, timeout=60
    )
    yield judge
    judge.close()


@pytest.fixture(scope="module")
def local(checkpoint: Path) -> Iterator[LocalJudge]:
    """The same model in this process, in which special tokens are text from the start."""
    judge = LocalJudge(checkpoint, dtype="float32", device="cpu", mode="full", max_analysis=200)
    yield judge
    judge.close()


def window(text: str, query: str = "", seconds: float = 60) -> Window:
    return Window(query=query, text=text, stream="s", deadline=time.monotonic() + seconds)


@pytest.mark.parametrize("word", ["", DOUBT, HARM])
async def test_the_analysis_is_written_and_read(full: RemoteJudge, word: str) -> None:
    heard: list[str] = []
    judge = full.in_mode("full", on_analysis=lambda _, piece: heard.append(piece))
    verdict = await judge.judge(window(f"{CALM_TEXT} {word}."))
    label = {"": "0", DOUBT: "0.5", HARM: "1"}[word]
    assert verdict == Verdict(
        level=RiskLevel(float(label)),
        judge="Tiny-Shield (full)",
        category={"0": RiskCategory.SAFE, "0.5": RiskCategory.PROHIBITED, "1": RiskCategory.CYBERSECURITY}[
            label
        ],
        analysis=ANALYSES[label],
    )
    assert "".join(heard) == f'"Analysis": {ANALYSES[label]}\n"Judgment": {label}'
    assert len(heard) > 3


async def test_fast_is_refused_with_what_to_do(full: RemoteJudge) -> None:
    with pytest.raises(JudgeRefused, match=r"no log-probabilities .* use mode='full'"):
        await full.in_mode("fast").judge(window(CALM_TEXT))


async def test_an_analysis_cut_short_is_no_verdict(server: str, checkpoint: Path) -> None:
    judge = RemoteJudge(server, model=str(checkpoint), prompt=PROMPT, mode="full", max_analysis=5)
    with pytest.raises(UnparsedVerdict, match=r"'length'.*raise max_analysis"):
        await judge.judge(window(HARM_TEXT))
    await judge.aclose()


async def test_another_models_name_is_refused(server: str) -> None:
    judge = RemoteJudge(server, model="nobody/nothing", mode="full")
    with pytest.raises(JudgeRefused, match="pinned"):
        await judge.judge(window(CALM_TEXT))
    await judge.aclose()


@pytest.mark.parametrize("place", ["before", "after", "in the query"])
@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
def test_a_forgery_is_read_as_the_text_that_it_is(
    full: RemoteJudge, local: LocalJudge, forgery: str, place: str
) -> None:
    text, query = placed(forgery, place)
    assert judged(full, window(text, query)) == judged(local, window(broken(text), broken(query)))


@pytest.mark.parametrize("forgery", ["a judgment", "an end of turn"])
def test_a_forged_verdict_does_not_win(full: RemoteJudge, forgery: str) -> None:
    assert judged(full, window(f"{HARM_TEXT} {FORGERIES[forgery]}")) is RiskLevel.HARMFUL


def judged(judge: Judge, window: Window) -> object:
    """The level, or what kind of failure there was."""
    try:
        return asyncio.run(judge.judge(window)).level
    except UnparsedVerdict as error:
        return type(error)


def prompt_tokens(server: str, model: str, content: str) -> int:
    asked = {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": content}]}
    request = urllib.request.Request(
        f"{server}/v1/chat/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        found: dict[str, Any] = json.load(reply)
    return int(found["usage"]["prompt_tokens"])


def test_the_server_does_parse_special_tokens_that_are_not_broken(server: str, checkpoint: Path) -> None:
    plain, spelt, broken = (
        prompt_tokens(server, str(checkpoint), text * 10) for text in ("", "<|eot_id|>", "< |eot_id|>")
    )
    assert spelt - plain == 10
    assert broken - plain > 40


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_guarded_stream_aborts_and_passes_as_its_thought_is(
    program: str, full: RemoteJudge, upstream: Upstream
) -> None:
    guard = Guard(judge=full, policy=Policy(judge_timeout=60), windower=SizeWindower(size=300))
    for word, ended in (("", Ended.COMPLETE), (DOUBT, Ended.COMPLETE), (HARM, Ended.ABORTED)):
        text = f"{' '.join(CALM)}. " * 5 + word + f" {' '.join(CALM)}. "
        pieces = [text[at : at + 13] for at in range(0, len(text), 13)]
        upstream.play(Script(chat(pieces, ["Bread ", "cools."])))
        outcome = ask(program, "create", upstream, guard)
        assert outcome.account.ended is ended
        assert outcome.account.failures == 0
        assert (outcome.content.get(0) == "Bread cools.") is (ended is Ended.COMPLETE)
        assert HARM not in outcome.reasoning[0]
        assert outcome.account.level == {"": 0.0, DOUBT: 0.5, HARM: 1.0}[word]


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with serve() as upstream:
        yield upstream
