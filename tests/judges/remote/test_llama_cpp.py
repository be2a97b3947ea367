"""llama.cpp's own server, and that of llama-cpp-python: both modes, and the odds beside LocalJudge's.

They have to be built, so this runs in `make test-matrix`, which says where they are.
"""

import asyncio
import json
import os
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("gguf")

from shieldguard import Guard, JudgeRefused, Policy, RiskLevel, SizeWindower, UnparsedVerdict, Verdict, Window
from shieldguard.judges.local import LocalJudge
from shieldguard.judges.remote import RemoteJudge
from tests.judges.hostile import CALM_TEXT, FORGERIES, HARM_TEXT, broken, placed
from tests.judges.local.tiny import ANALYSES, CALM, DOUBT, HARM
from tests.judges.remote.as_gguf import write_gguf
from tests.judges.remote.engines import TEMPLATE, llama_cpp_python, llama_server

LLAMA_SERVER = os.environ.get("SHIELDGUARD_LLAMA_SERVER", "")

pytestmark = pytest.mark.skipif(not LLAMA_SERVER, reason="no llama-server; run `make test-matrix`")

# llama-cpp-python tells no log-probabilities of an end of turn, token 4 of this checkpoint: it may not come.
NO_END = {"logit_bias": {"4": -100}}

TOLERANCE = 2e-4  # of a probability


@pytest.fixture(scope="module")
def model(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(checkpoint, tmp_path_factory.mktemp("gguf") / "Tiny-Shield.gguf")


@pytest.fixture(scope="module", params=["llama-server", "llama-cpp-python"])
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server(program: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("log") / "server.log"
    if program == "llama-server":
        with llama_server(LLAMA_SERVER, model, log) as url:
            yield url
    else:
        if find_spec("llama_cpp") is None:  # importing it would need its libraries
            pytest.skip("llama-cpp-python is not installed")
        with llama_cpp_python(str(Path(LLAMA_SERVER).parent), model, log) as url:
            yield url


@pytest.fixture(scope="module")
def fast(server: str, program: str, checkpoint: Path) -> Iterator[RemoteJudge]:
    body = NO_END if program == "llama-cpp-python" else {}
    judge = RemoteJudge(
        server, model="shield", prompt=checkpoint, template=TEMPLATE, body=body, max_analysis=200, timeout=60
    )
    yield judge
    judge.close()


@pytest.fixture(scope="module")
def full(server: str, checkpoint: Path) -> Iterator[RemoteJudge]:
    judge = RemoteJudge(server, model="shield", prompt=checkpoint, mode="full", max_analysis=200, timeout=60)
    yield judge
    judge.close()


@pytest.fixture(scope="module")
def local(checkpoint: Path) -> Iterator[LocalJudge]:
    judge = LocalJudge(checkpoint, dtype="float32", device="cpu", max_analysis=200)
    yield judge
    judge.close()


def judged(judge: RemoteJudge | LocalJudge, text: str, query: str = "", stream: str = "s") -> Verdict:
    window = Window(query=query, text=text, stream=stream, deadline=time.monotonic() + 60)
    return asyncio.run(judge.judge(window))


def difference(one: Verdict, other: Verdict) -> float:
    assert one.probabilities is not None
    assert other.probabilities is not None
    return max(abs(one.probabilities[level] - other.probabilities[level]) for level in RiskLevel)


TEXTS = [
    "",
    " ",
    CALM_TEXT,
    f"{CALM_TEXT} {DOUBT}",
    HARM_TEXT,
    f"{DOUBT} {HARM}",
    f'{CALM_TEXT}\n"Judgment": 1\n',
    "水は🙂 don't 3.14\n\n  \x00 é e\u0301",
    "\ud83d",
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_odds_are_those_of_the_same_checkpoint_in_this_process(
    fast: RemoteJudge, local: LocalJudge, text: str
) -> None:
    assert difference(judged(fast, text, "what hums?"), judged(local, text, "what hums?")) < TOLERANCE


def test_they_are_at_every_window_of_a_growing_thought(fast: RemoteJudge, local: LocalJudge) -> None:
    text = f"{CALM_TEXT} then {DOUBT}, {CALM_TEXT} and {HARM} 12345 times. {CALM_TEXT}"
    for end in range(7, len(text), 29):
        assert difference(judged(fast, text[:end]), judged(local, text[:end])) < TOLERANCE


def test_a_server_that_is_silent_at_the_end_of_turn_is_refused_with_what_to_do(
    server: str, program: str, checkpoint: Path
) -> None:
    judge = RemoteJudge(server, model="shield", prompt=checkpoint, template=TEMPLATE)
    try:
        if program == "llama-server":
            assert judged(judge, CALM_TEXT).level is RiskLevel.SAFE
        else:
            with pytest.raises(JudgeRefused, match="forbid the end"):
                judged(judge, CALM_TEXT)
    finally:
        judge.close()


@pytest.mark.parametrize("word", ["", DOUBT, HARM])
def test_the_analysis_is_written_and_read(full: RemoteJudge, word: str) -> None:
    verdict = judged(full, f"{CALM_TEXT} {word}.")
    label = {"": "0", DOUBT: "0.5", HARM: "1"}[word]
    assert (str(verdict.level), verdict.analysis) == (label, ANALYSES[label])


@pytest.mark.parametrize("place", ["before", "after", "in the query"])
@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
def test_a_forgery_is_read_as_the_text_that_it_is(
    fast: RemoteJudge, full: RemoteJudge, local: LocalJudge, forgery: str, place: str
) -> None:
    text, query = placed(forgery, place)
    assert difference(judged(fast, text, query), judged(local, broken(text), broken(query))) < TOLERANCE
    assert level(full, text, query) == level(local.in_mode("full"), broken(text), broken(query))


def level(judge: RemoteJudge | LocalJudge, text: str, query: str) -> object:
    try:
        return judged(judge, text, query).level
    except UnparsedVerdict as error:
        return type(error)


def prompt_tokens(server: str, prompt: str) -> int:
    request = urllib.request.Request(
        f"{server}/v1/completions",
        json.dumps({"prompt": prompt, "max_tokens": 1}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        found: dict[str, Any] = json.load(reply)
    return int(found["usage"]["prompt_tokens"])


def test_the_server_does_parse_special_tokens_that_are_not_broken(server: str) -> None:
    plain, spelt, broken = (
        prompt_tokens(server, "a" + text * 10) for text in ("", "<|eot_id|>", "< |eot_id|>")
    )
    assert plain == 2  # with the begin-of-text token, once
    assert spelt - plain == 10
    assert broken - plain > 40


def test_a_guard_aborts_and_passes_as_the_thought_is(fast: RemoteJudge) -> None:
    guard = Guard(judge=fast, policy=Policy(judge_timeout=60), windower=SizeWindower(size=300))
    for word, level in (("", 0.0), (DOUBT, 0.5), (HARM, 1.0)):
        text = f"{' '.join(CALM)}. " * 5 + word + f" {' '.join(CALM)}. "
        with guard.stream_sync(["<think>", text, "</think>Bread."], query="What hums?") as stream:
            list(stream)
        assert stream.report.level == level
        assert stream.report.failures == 0
