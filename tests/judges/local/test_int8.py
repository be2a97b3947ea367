"""Weights of eight bits: near the true product, and no less exact about what is kept."""

import asyncio
import math
from pathlib import Path

import pytest
import torch

from shieldguard import ConfigError, Window
from shieldguard.judges.local import LocalJudge
from shieldguard.judges.local.checkpoint import chosen_dtype
from shieldguard.judges.local.int8 import Int8Linear
from tests.judges.local.tiny import CALM, HARM


@pytest.mark.parametrize("bias", [True, False])
def test_a_rounded_layer_is_near_the_true_one_and_each_row_by_itself(bias: bool) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(96, 64, bias=bias)
    rounded = Int8Linear(linear)
    given = torch.randn(2, 37, 96) * torch.logspace(-2, 2, 37)[:, None]
    with torch.inference_mode():
        true, near = linear(given), rounded(given)
        assert near.shape == true.shape
        assert float((near - true).norm() / true.norm()) < 0.02
        alone = torch.stack([rounded(row[None])[0] for row in given.reshape(-1, 96)])
    assert torch.equal(alone, near.reshape(-1, 64))


def test_a_rounded_judge_judges_as_it_did_and_keeps_what_it_computed(checkpoint: Path) -> None:
    text = " ".join([*CALM * 2, HARM, *CALM])
    judge, fresh = (LocalJudge(checkpoint, dtype="int8", device="cpu") for _ in range(2))
    assert any(isinstance(module, Int8Linear) for module in judge._checkpoint.model.modules())

    async def main() -> None:
        for end in range(40, len(text) + 1, 31):
            kept = await judge.judge(Window(query="", text=text[:end], stream="s"))
            fresh.forget("s")
            again = await fresh.judge(Window(query="", text=text[:end], stream="s"))
            assert kept.level is again.level
            assert kept.level == float(f"{HARM} " in text[:end])
            for level, odds in (kept.probabilities or {}).items():
                assert math.isclose(odds, (again.probabilities or {})[level], abs_tol=0.03)

    asyncio.run(main())
    judge.close()
    fresh.close()


def test_it_is_for_a_cpu() -> None:
    with pytest.raises(ConfigError, match="for a CPU"):
        chosen_dtype("int8", torch.device("cuda"))
