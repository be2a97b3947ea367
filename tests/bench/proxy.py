"""The proxy beside the bare model server, LiteLLM's proxy with a streaming guardrail, and NeMo's server.

    python -m tests.bench.proxy [--seconds S] [--streams N] [--venvs DIR] [--only NAME …]

Each is a process with one worker, in an environment of its own; so are the model server and the clients. The
model thinks in pieces of 16 characters and answers in 10 more. Only the thought is judged, by a judge that
answers at once or after 50 ms. What cannot be installed or started is reported and left out.
"""

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

from tests.bench.peers import Peer, UnavailableError, environment

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
AT_ONCE = (1, 16, 64, 256)
PACED = (1, 16)
DELAYS = (0.0, 0.05)

SHIELDGUARD = """
judge = "tests.bench.proxy_judge:judge"
[judge_options]
delay = {delay}
[policy]
answer = "none"
[[serve.upstreams]]
url = "http://127.0.0.1:{upstream}"
"""

LITELLM = """
model_list:
  - model_name: "*"
    litellm_params: {{model: "hosted_vllm/*", api_base: "http://127.0.0.1:{upstream}/v1", api_key: none}}
guardrails:
  - guardrail_name: hold-back
    litellm_params: {{guardrail: guardrail.HoldBack, mode: post_call, default_on: true}}
"""

NEMO = """
models:
  - type: main
    engine: openai
    model: burst
    parameters: {{base_url: "http://127.0.0.1:{upstream}/v1"}}
passthrough: true
rails:
  output:
    flows: [check]
    streaming: {{enabled: true, stream_first: false}}
"""
NEMO_FLOW = """
define subflow check
  $outcome = execute bench_check
  if $outcome.is_blocked
    bot refuse to respond
    stop
"""
NEMO_ACTION = """
import asyncio
from nemoguardrails.actions import action
from nemoguardrails.actions.rail_outcome import RailOutcome

@action(name="bench_check")
async def bench_check(context=None, **_):
    if {delay}:
        await asyncio.sleep({delay})
    return RailOutcome.allow()
"""


NOTES = """\
Shieldguard and the guardrail in LiteLLM judge windows of some 170 characters. Shieldguard reads on meanwhile,
and judges what queues up behind a slow judge as one; the guardrail judges one after the other. NeMo judges
200 pieces at a time, its default, and gets the thought between think tags: it reads no other."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to ask. `models` comes before the names of its models."""

    name: str
    port: int
    pid: int = 0
    models: str = ""

    def ask(self, model: str, clients: int, seconds: float, streams: int = 0) -> "Outcome":
        command = [sys.executable, str(HERE / "proxy_client.py"), str(self.port), self.models + model]
        command += [str(clients), str(seconds), str(streams)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=7 * seconds + 60)
        return Outcome(**json.loads(done.stdout))

    def resident(self) -> float:
        """MiB of memory."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return float("nan")
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    streams: int
    seconds: float
    first: list[float]
    failures: list[str]
    size: float
    received: int

    def per_second(self, size: float) -> float:
        """Streams of that many bytes."""
        return self.received / size / self.seconds if size and self.seconds else 0.0

    def percentile(self, percent: int) -> float:
        """Of the milliseconds to the first piece of the answer."""
        if len(self.first) < 2:
            return 1000 * (self.first[0] if self.first else float("nan"))
        return 1000 * quantiles(self.first, n=100, method="inclusive")[percent - 1]


# -- servers ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def process(
    command: Sequence[str], folder: Path, environ: Mapping[str, str], *, reads: bool = False
) -> Iterator["subprocess.Popen[str]"]:
    with (folder / "log").open("w") as log:
        running = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environ},
            stdout=subprocess.PIPE if reads else log,
            stderr=log,
            text=True,
        )
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(10)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()
            if running.stdout is not None:
                running.stdout.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for(target: Target, running: "subprocess.Popen[str]", folder: Path) -> None:
    """Until it has answered once."""
    asked = {"model": f"{target.models}burst", "messages": [{"role": "user", "content": "?"}], "stream": True}
    request = urllib.request.Request(
        f"http://127.0.0.1:{target.port}/v1/chat/completions",
        json.dumps(asked).encode(),
        {"content-type": "application/json"},
    )
    said = ""
    for _ in range(240):
        if running.poll() is not None:
            break
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                said = response.read().decode()
            if "ANSWER" in said:
                return
        except OSError as error:
            said = repr(error)
        time.sleep(0.5)
    log = (folder / "log").read_text().strip()[-600:]
    raise UnavailableError(f"{target.name} does not answer: {said[-600:]!r}; its log ends: {log!r}")


@contextlib.contextmanager
def upstream(folder: Path) -> Iterator[Target]:
    command = [sys.executable, str(HERE / "proxy_upstream.py")]
    with process(command, folder, {}, reads=True) as running:
        assert running.stdout is not None
        yield Target("none: the bare model server", int(running.stdout.readline()), running.pid)


@contextlib.contextmanager
def guarded(name: str, delay: float, upstream: int, venvs: Path) -> Iterator[Target]:
    """One of the guards, in front of the model server."""
    port = free_port()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        command, environ, label, models = PREPARE[name](folder, delay, upstream, port, venvs)
        with process(command, folder, environ) as running:
            target = Target(label, port, running.pid, models)
            wait_for(target, running, folder)
            yield target


Prepared = tuple[list[str], dict[str, str], str, str]


def shieldguard(folder: Path, delay: float, upstream: int, port: int, venvs: Path) -> Prepared:
    (folder / "guard.toml").write_text(SHIELDGUARD.format(delay=delay, upstream=upstream))
    command = [sys.executable, "-m", "shieldguard_adapters.cli", "serve"]
    command += ["--config", str(folder / "guard.toml"), "--port", str(port)]
    return command, {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'adapters'}"}, "shieldguard", ""


def litellm(folder: Path, delay: float, upstream: int, port: int, venvs: Path) -> Prepared:
    python = environment(Peer("litellm", ""), venvs)
    (folder / "config.yaml").write_text(LITELLM.format(upstream=upstream))
    (folder / "guardrail.py").write_text((HERE / "peer_litellm_guardrail.py").read_text())
    command = [str(Path(python).with_name("litellm")), "--config", str(folder / "config.yaml")]
    command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    environ = {
        "BENCH_DELAY": str(delay),
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_TELEMETRY": "False",
    }
    return command, environ, "LiteLLM 1.106.2", ""


def nemo(folder: Path, delay: float, upstream: int, port: int, venvs: Path) -> Prepared:
    python = environment(Peer("nemo-server", ""), venvs)
    config = folder / "configs" / "bench"
    config.mkdir(parents=True)
    (config / "config.yml").write_text(NEMO.format(upstream=upstream))
    (config / "flows.co").write_text(NEMO_FLOW)
    (config / "actions.py").write_text(NEMO_ACTION.format(delay=delay))
    command = [str(Path(python).with_name("nemoguardrails")), "server", "--config", str(folder / "configs")]
    command += ["--port", str(port), "--default-config-id", "bench"]
    return (
        command,
        {"NEMO_GUARDRAILS_NO_USAGE_STATS": "1", "OPENAI_API_KEY": "none"},
        "NeMo Guardrails 0.24.1",
        "inline-",
    )


PREPARE = {"shieldguard": shieldguard, "litellm": litellm, "nemo": nemo}


# -- measuring -------------------------------------------------------------------------------------


def measure(target: Target, judge: str, bare: dict[int, Outcome], seconds: float) -> list[list[str]]:
    """A row of each table: throughput, and latency beside that of the bare server, which fills `bare`."""
    latency = [target.name, judge]
    for clients in PACED:
        found = told(target.ask("paced", clients, 2 * seconds), target, clients)
        for percent in (50, 95):
            time_taken = found.percentile(percent)
            without = bare[clients].percentile(percent) if bare.get(clients) else None
            latency.append(f"{time_taken:.0f}" if without is None else f"{time_taken - without:+.1f}")
        bare.setdefault(clients, found)
    throughput = [target.name, judge]
    size = 0.0
    for clients in AT_ONCE:
        found = told(target.ask("burst", clients, seconds), target, clients)
        size = size or found.size
        throughput.append(f"{found.per_second(size):.1f}")
    return [[*throughput, f"{target.resident():.0f}"], latency]


def told(found: Outcome, target: Target, clients: int) -> Outcome:
    shown = f"{target.name}, {clients} at once: {found.streams} streams in {found.seconds:.1f} s"
    print(shown, *found.failures, file=sys.stderr)
    return found


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---|---" + "|--:" * (len(head) - 2) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def memory(venvs: Path, upstream: int, streams: int) -> str:
    """A proxy of its own, which that many streams go through."""
    resident = []
    with guarded("shieldguard", 0.0, upstream, venvs) as target:
        had = 1  # it was asked once, to see that it answers
        for until in (streams // 10, streams):
            found = target.ask("burst", 64, 900, until - had)
            had += told(found, target, 64).streams
            if had != until:
                raise UnavailableError(f"{had} of {until} streams came: {found.failures}")
            resident.append(f"{target.resident():.1f} MiB after {had:,} streams")
    return f"Memory of the proxy, 64 streams at once: {', '.join(resident)}."


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--venvs", type=Path, default=ROOT / ".venvs", help="default: .venvs/")
    parser.add_argument("--seconds", type=float, default=2.5, help="for each figure, at least")
    parser.add_argument(
        "--streams", type=int, default=10_000, help="through which memory must stay flat; 0: none"
    )
    parser.add_argument("--only", nargs="*", default=list(PREPARE), choices=list(PREPARE))
    arguments = parser.parse_args()
    throughput: list[list[str]] = []
    latency: list[list[str]] = []
    notes: list[str] = []
    bare: dict[int, Outcome] = {}
    with tempfile.TemporaryDirectory() as folder, upstream(Path(folder)) as model:
        fast, slow = measure(model, "", bare, arguments.seconds)
        throughput.append(fast)
        latency.append(slow)
        for name in arguments.only:
            for delay in DELAYS:
                try:
                    with guarded(name, delay, model.port, arguments.venvs.resolve()) as target:
                        judge = f"{1000 * delay:.0f} ms" if delay else "instant"
                        fast, slow = measure(target, judge, bare, arguments.seconds)
                        throughput.append(fast)
                        latency.append(slow)
                except (UnavailableError, subprocess.SubprocessError) as error:
                    notes.append(f"{name}: not measured: {error}")
                    break
        if "shieldguard" in arguments.only and arguments.streams:
            try:
                notes.append(memory(arguments.venvs.resolve(), model.port, arguments.streams))
            except (UnavailableError, subprocess.SubprocessError) as error:
                notes.append(f"memory: not measured: {error}")
    print("Streams a second, 200 pieces of thought all at once, by how many clients ask at a time:\n")
    print(table(["guard", "judge", *map(str, AT_ONCE), "MiB"], throughput))
    print(
        "\nMilliseconds to the answer, behind 60 pieces of thought, one each 20 ms; or what a guard adds:\n"
    )
    heads = [f"{clients} at once, {which}" for clients in PACED for which in ("p50", "p95")]
    print(table(["guard", "judge", *heads], latency))
    print(f"\n{NOTES}")
    for note in notes:
        print(f"\n{note}")
    return 0 if len(throughput) > 1 else 1


if __name__ == "__main__":
    sys.exit(main())
