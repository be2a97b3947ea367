"""`shieldguard serve`, in a process of its own."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from shieldguard_adapters.proxy.keys import hashed
from tests.clients.rig import reasoning
from tests.command import ROOT, shieldguard
from tests.proxy.rig import CHAT, QUESTION, parted, until
from tests.upstream import Script, Upstream, chat

JUDGE = {"SHIELDGUARD_JUDGE": "shieldguard.testing:ScriptedJudge"}
MARKS = {"SHIELDGUARD_JUDGE_OPTIONS": json.dumps({"rule": {"HARM": 1.0}})}
CALM = chat(reasoning(sentences=12), ["It is fine."])
RUNNING = re.compile(r" running on https?://[\d.]+:(\d+)")


class Process:
    """A running command, and what it said on standard error."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.url = ""
        self.said = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line

    def ended(self, *, seconds: float = 30) -> int:
        code = self.process.wait(seconds)
        self._reader.join(5)
        return code


@contextmanager
def serving(*flags: object, scheme: str = "http", **environment: str) -> Iterator[Process]:
    measuring = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "shieldguard_adapters.cli", "serve", "--port", "0", *map(str, flags)],
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'adapters'}", "PATH": "", **measuring, **environment},
    )
    served = Process(process)
    try:
        assert until(lambda: RUNNING.search(served.said) or process.poll() is not None, seconds=60), (
            served.said
        )
        found = RUNNING.search(served.said)
        assert found, served.said
        served.url = f"{scheme}://127.0.0.1:{found[1]}"
        yield served
    finally:
        process.kill()
        process.wait()
        served._reader.join(5)
        assert process.stderr is not None
        process.stderr.close()


def test_it_serves_and_ends_running_streams_well(upstream: Upstream) -> None:
    """The path of the README, and a SIGTERM in mid-stream."""
    with serving("--upstream", upstream.url, **JUDGE, **MARKS) as served, httpx2.Client(timeout=20) as client:
        assert client.get(f"{served.url}/readyz").json() == {"status": "ready"}
        upstream.play(Script(chat(reasoning(harm_in=2), ["no"])))
        harmful = client.post(served.url + CHAT, json=QUESTION)
        assert "HARM" not in harmful.text
        report = client.get(f"{served.url}/shieldguard/streams/{harmful.headers['x-shieldguard-id']}").json()
        assert report["cause"] == "risk"
        assert 'level="1"' in client.get(f"{served.url}/metrics").text
        upstream.play(Script(CALM, delay=0.03))
        with client.stream("POST", served.url + CHAT, json=QUESTION) as response:
            served.process.send_signal(signal.SIGTERM)
            assert until(lambda: "Shutting down" in served.said)
            assert until(lambda: refuses(served.url))
            assert upstream.sent < len(CALM)
            assert parted(response.read())[0] == b"".join(CALM)
        assert served.ended() in (0, -signal.SIGTERM)
    lines = [json.loads(line) for line in served.said.splitlines() if line.startswith("{")]
    assert [line["ended"] for line in lines] == ["aborted", "complete"]
    assert "Sentence" not in served.said
    assert "Traceback" not in served.said


def refuses(url: str) -> bool:
    try:
        httpx2.get(f"{url}/healthz", trust_env=False)
    except httpx2.ConnectError:
        return True
    except httpx2.TransportError:  # it was being closed
        return False
    return False


def test_past_the_limit_a_stream_is_cut_without_what_was_not_judged(upstream: Upstream) -> None:
    """The judge never answers for what has the mark in it, and what comes behind is held."""
    options = json.dumps({"marks": ["WAIT"]})
    judge = {"SHIELDGUARD_JUDGE": "tests.proxy.judges:stuck_at", "SHIELDGUARD_JUDGE_OPTIONS": options}
    limits = {"SHIELDGUARD_SERVE__SHUTDOWN_TIMEOUT": "0.5", "SHIELDGUARD_POLICY__JUDGE_TIMEOUT": "60"}
    thought = [*reasoning(sentences=2), " WAIT. ", *reasoning(sentences=40)]
    with serving("--upstream", upstream.url, **judge, **limits) as served:
        upstream.play(Script(chat(thought, ["It is fine."]), delay=0.002, hold_open=True))
        address = httpx2.URL(served.url)
        with socket.create_connection((address.host, address.port or 0), timeout=20) as connection:
            body = json.dumps(QUESTION).encode()
            head = f"POST {CHAT} HTTP/1.1\r\nhost: h\r\ncontent-length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            got = b""
            while got.count(b"reasoning_content") <= 3:
                got += (piece := connection.recv(65536))
                assert piece
            assert until(lambda: upstream.sent == len(upstream.script.pieces))
            served.process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            while piece := connection.recv(65536):
                got += piece
        assert served.ended() in (0, -signal.SIGTERM)
        assert time.monotonic() - began < 20  # of the sixty that the judge has
        assert b"WAIT" not in got
        assert b"fine" not in got
        assert not got.endswith(b"0\r\n\r\n")
        assert upstream.finished.wait(20)


def test_it_may_open_as_many_files_as_there_may_be(upstream: Upstream) -> None:
    limits = Path("/proc/self/limits")
    if not limits.is_file():
        pytest.skip("no /proc here")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        with serving("--upstream", upstream.url, **JUDGE) as served:
            told = Path(f"/proc/{served.process.pid}/limits").read_text()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    [line] = [line for line in told.splitlines() if line.startswith("Max open files")]
    assert line.split()[3] == line.split()[4]


@pytest.mark.parametrize(
    ("flags", "key", "said"),
    [
        (("--host", "0.0.0.0"), "sk-secret", True),
        (("--host", "0.0.0.0"), "", False),
        ((), "sk-secret", False),
    ],
)
def test_a_key_that_anybody_could_use_is_said(
    flags: tuple[str, ...], key: str, said: bool, upstream: Upstream
) -> None:
    upstreams = json.dumps([{"url": upstream.url, "api_key": key}])
    with serving(*flags, SHIELDGUARD_SERVE__UPSTREAMS=upstreams, **JUDGE) as served:
        assert ("can use the upstream's key" in served.said) is said
        assert "sk-secret" not in served.said


def test_it_speaks_tls(upstream: Upstream, tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    flags = ("--tls-certificate", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem")
    file = tmp_path / "guard.toml"
    file.write_text(
        f'[serve]\nupstreams = [{{ url = "{upstream.url}" }}]\n'
        f'keys = [{{ name = "one", sha256 = "{hashed("sg-key")}" }}]\n',
        encoding="utf-8",
    )
    with serving("--config", file, *flags, scheme="https", **JUDGE) as served:
        import ssl

        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        with httpx2.Client(verify=context, trust_env=False) as client:
            upstream.play(Script(CALM))
            url = served.url + CHAT
            assert client.post(url, json=QUESTION).status_code == 401
            response = client.post(url, json=QUESTION, headers={"x-api-key": "sg-key"})
            assert parted(response.content)[0] == b"".join(CALM)
        with pytest.raises(httpx2.ConnectError), httpx2.Client(trust_env=False) as stranger:
            stranger.get(f"{served.url}/healthz")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "there is no model server to guard; give --upstream URL"),
        (("--upstream", "localhost"), "http://"),
        (("--upstream", "http://h", "--tls-key", "k.pem"), "both"),
        (("--upstream", "http://h", "--tls-key", "k.pem", "--tls-certificate", "c.pem"), "no file 'c.pem'"),
        (("--upstream", "http://h", "--judge", "nowhere:nothing"), "nowhere"),
        (("--upstream", "http://h", "--config", "nowhere.toml"), "nowhere.toml"),
    ],
)
def test_what_cannot_be_served_is_said(flags: tuple[str, ...], said: str) -> None:
    done = shieldguard("serve", *flags)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_key_is_made() -> None:
    done = shieldguard("key")
    found: Any = re.fullmatch(r"key: +(sg-\S{43})\nsha256: ([0-9a-f]{64})\n", done.stdout)
    assert found[2] == hashed(found[1])
