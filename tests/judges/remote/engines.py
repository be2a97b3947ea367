"""Real servers on loopback, each in a process of its own."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_port

# What the template of the tests' checkpoint writes, but for the begin-of-text token.
TEMPLATE = (
    "<|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n{system}<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n{user}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)


@contextmanager
def transformers_serve(checkpoint: Path, log: Path) -> Iterator[str]:
    """The URL of `transformers serve` with this checkpoint."""
    port = free_port()
    command = [
        *(str(Path(sys.executable).with_name("transformers")), "serve", str(checkpoint)),
        *("--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"),
    ]
    with running(command, f"http://127.0.0.1:{port}", log) as url:
        yield url


@contextmanager
def llama_server(program: str, model: Path, log: Path) -> Iterator[str]:
    """The URL of llama.cpp's server with this model, its cache in float32."""
    port = free_port()
    command = [
        *(program, "--model", str(model), "--host", "127.0.0.1", "--port", str(port)),
        *("--ctx-size", "8192", "--parallel", "2", "--threads", "1", "--no-warmup"),
        *("--cache-type-k", "f32", "--cache-type-v", "f32"),
    ]
    with running(command, f"http://127.0.0.1:{port}", log) as url:
        yield url


@contextmanager
def llama_cpp_python(libraries: str, model: Path, log: Path) -> Iterator[str]:
    """The URL of llama-cpp-python's server with this model, on these libraries of llama.cpp."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--n_ctx", "4096"),
        *("--host", "127.0.0.1", "--port", str(port), "--logits_all", "true", "--n_threads", "1"),
    ]
    with running(command, f"http://127.0.0.1:{port}", log, LLAMA_CPP_LIB_PATH=libraries) as url:
        yield url


@contextmanager
def running(command: list[str], url: str, log: Path, **environment: str) -> Iterator[str]:
    quiet = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **quiet, **environment}
        )
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise RuntimeError(f"{command[0]} ended: {log.read_text()[-2000:]}")
            if is_healthy(url):
                break
            time.sleep(0.1)
        else:
            raise RuntimeError(f"{command[0]} does not answer: {log.read_text()[-2000:]}")
        yield url
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/v1/models", timeout=1) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False
