"""Each example runs, offline, and prints what it is there to show."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import httpx2
import pytest

from shieldguard_adapters.demo.scripts import ALL

ROOT = Path(__file__).resolve().parents[1]


def run(name: str, warnings: str = "error") -> str:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "adapters")])
    done = subprocess.run(
        [sys.executable, "-W", warnings, str(ROOT / "examples" / name)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_every_example_has_a_test() -> None:
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == {
        "agent_agent_framework.py",
        "agent_autogen.py",
        "agent_google_adk.py",
        "agent_langchain.py",
        "agent_openai_agents.py",
        "agent_pydantic_ai.py",
        "any_stream.py",
        "litellm_sdk.py",
        "llama_index_model.py",
        "local_generation.py",
        "model_server.py",
        "openai_client.py",
        "own_judge.py",
        "smolagents_agent.py",
    }


def test_any_stream_passes_a_harmless_thought_whole() -> None:
    output = run("any_stream.py")
    thought, _, answer = output.partition("</think>")
    assert thought.startswith("<think>The user asks why")
    assert thought.endswith("the flour's weight.")
    assert answer.startswith("It slows the yeast")
    assert "complete, level 0:" in output


def test_openai_client_stops_the_scam_and_lets_the_bicycle_pass() -> None:
    pytest.importorskip("openai")
    pytest.importorskip("uvicorn")
    scam, bicycle, *_ = run("openai_client.py").split("\n\n")
    assert "A: [Withheld: " in scam
    assert "aborted, highest level 1" in scam
    assert "Northfield fraud department" not in scam
    assert "A: Check four things" in bicycle
    assert "complete, highest level 0" in bicycle


def test_own_judge_redacts_the_card_number() -> None:
    output = run("own_judge.py")
    assert "4111" not in output
    assert "[Withheld" in output
    assert "Yes: it was paid on Tuesday" in output
    assert "[complete: 79 characters of reasoning redacted]" in output


def test_the_model_server_says_where_it_is() -> None:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "adapters")])
    server = subprocess.Popen(
        [sys.executable, "-W", "error", str(ROOT / "examples" / "model_server.py")],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        asked = {"model": ALL[1].name, "messages": []}
        body = httpx2.post(f"{url}/chat/completions", json=asked, trust_env=False).text
        assert body.endswith("data: [DONE]\n\n")
    finally:
        server.kill()
        server.communicate()


@pytest.mark.slow
def test_local_generation_judges_what_a_model_of_random_weights_says() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    account = run("local_generation.py").splitlines()[-1]
    assert re.fullmatch(r"complete, level 0(.5)?: [1-9]\d\d+ characters judged", account)


@pytest.mark.parametrize(
    ("framework", "blocked"),
    [
        ("agent_framework", "finish reason: content_filter"),
        ("autogen", "A: [Withheld: "),
        ("google_adk", "SAFETY: "),
        ("langchain", "finish reason: content_filter"),
        ("openai_agents", "ModelRefusalError: "),
        ("pydantic_ai", "ContentFilterError: "),
    ],
)
def test_an_agents_tool_runs_on_the_harmless_thought_alone(framework: str, blocked: str) -> None:
    pytest.importorskip(
        {"autogen": "autogen_agentchat", "google_adk": "google.adk", "openai_agents": "agents"}.get(
            framework, framework
        )
    )
    harmful, harmless, *_ = run(f"agent_{framework}.py").split("\n\n")
    assert blocked in harmful
    assert "[Withheld: " in harmful
    assert "the tool ran" not in harmful
    assert "the tool ran: backups older than 90 days are gone\nA: It is done." in harmless


def test_litellm_sdk_stops_the_scam_and_lets_the_bicycle_pass() -> None:
    if find_spec("litellm") is None:
        pytest.skip("litellm is not installed")
    _scam_stopped_and_bicycle_passed(run("litellm_sdk.py", warnings="ignore"))


def test_llama_index_model_stops_the_scam_and_lets_the_bicycle_pass() -> None:
    pytest.importorskip("llama_index.llms.openai")
    _scam_stopped_and_bicycle_passed(run("llama_index_model.py"))


def test_smolagents_agent_stops_the_scam_and_lets_the_bicycle_pass() -> None:
    pytest.importorskip("smolagents")
    _scam_stopped_and_bicycle_passed(run("smolagents_agent.py"))


def _scam_stopped_and_bicycle_passed(output: str) -> None:
    scam, bicycle = sorted(output.split("Q: ")[1:], key=lambda part: "bicycle" in part)
    assert "[Withheld: " in scam
    assert "Northfield fraud department" not in scam
    assert "Check four things" in bicycle
