"""What is sent to vLLM and what it replies, by the classes that vLLM itself reads and writes them with.

Its wheel is for GPUs, so its sources alone are looked at, in `make test-matrix`; no vLLM runs here.
"""

import asyncio
import json
import math
from typing import Any

import pytest

pytest.importorskip("vllm", reason="no sources of vLLM; run `make test-matrix`")

from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionRequest,
    ChatCompletionStreamResponse,
)
from vllm.entrypoints.openai.completion.protocol import CompletionRequest, CompletionResponse

from shieldguard.judges.remote.replies import guesses_of, piece_of
from tests.judges.remote.rig import WRITTEN, analysis, make, servers, window


def asked(mode: Any) -> dict[str, Any]:
    """The body of a request."""
    with servers(1) as [upstream]:
        if mode == "full":
            upstream.play(analysis(*WRITTEN))
        judge = make([upstream], mode=mode)
        try:
            asyncio.run(judge.judge(window()))
        finally:
            judge.close()
        return upstream.requests[0]


def test_a_fast_request_says_what_it_means() -> None:
    request = CompletionRequest.model_validate(asked("fast"))
    assert not request.model_extra
    assert request.add_special_tokens  # the begin-of-text token, once
    sampling = request.to_sampling_params(request.max_tokens)
    assert (sampling.temperature, sampling.max_tokens, sampling.logprobs) == (0, 3, 20)
    assert sampling.prompt_logprobs is None  # which would forbid the use of the prefix cache


def test_a_full_request_says_what_it_means() -> None:
    request = ChatCompletionRequest.model_validate(asked("full"))
    assert not request.model_extra
    assert request.chat_template_kwargs == {"date_string": "26 Jul 2024"}
    assert request.add_generation_prompt
    sampling = request.to_sampling_params(request.max_tokens, {})
    assert (sampling.temperature, sampling.max_tokens) == (0, 1024)


def test_a_completion_is_read() -> None:
    logprobs = {
        "tokens": ["0", ".", "5"],
        "token_logprobs": [-0.1, -0.2, 0.0],
        "top_logprobs": [{"0": -0.1, "1": -2.5}, {".": -0.2, "\n": -9999.0}, {"5": 0.0}],
        "text_offset": [0, 1, 2],
    }
    choice = {"index": 0, "text": "0.5", "finish_reason": "length", "logprobs": logprobs}
    usage = {"prompt_tokens": 1, "total_tokens": 4, "completion_tokens": 3}
    reply = CompletionResponse(model="m", choices=[choice], usage=usage)
    guesses = guesses_of(reply.model_dump_json().encode())
    assert guesses is not None
    assert [guess.wrote for guess in guesses] == ["0", ".", "5"]
    assert guesses[0].of("1") == pytest.approx(math.exp(-2.5))


@pytest.mark.parametrize("ended", [None, "stop", "length"])
def test_a_streamed_chunk_is_read(ended: str | None) -> None:
    choice = {"index": 0, "delta": {"content": "calm"}, "finish_reason": ended}
    chunk = ChatCompletionStreamResponse(model="m", choices=[choice])
    for data in (chunk.model_dump_json(exclude_unset=True), json.dumps(chunk.model_dump())):
        assert piece_of(data.encode()) == ("calm", ended)
