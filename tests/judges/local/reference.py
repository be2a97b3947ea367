"""The slow way: everything is read anew for each verdict, by transformers alone, and each label by itself."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from shieldguard import RiskLevel
from tests.judges.local.tiny import chat

LABELS = {RiskLevel.SAFE: "0", RiskLevel.POTENTIAL: "0.5", RiskLevel.HARMFUL: "1"}


class Reference:
    def __init__(self, checkpoint: Path) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            checkpoint, dtype=torch.float32, attn_implementation="eager"
        )
        self.model.train(False)

    def tokens(self, query: str, thought: str) -> list[int]:
        """The card's tokens, with no special token parsed in query or thought."""
        before, after = chat(self.tokenizer, "", "<>").split("Query: \nThought: <>")
        header = before[: before.rindex("<|end_header_id|>") + len("<|end_header_id|>")]
        content = before[len(header) :] + f"Query: {query}\nThought: {thought}".strip()
        return [
            *self._encode(header),
            *self._encode(content, split_special_tokens=True),
            *self._encode(after),
        ]

    def whole(self, query: str, thought: str) -> list[int]:
        """The same of a text without special tokens, tokenised in one piece."""
        return self._encode(chat(self.tokenizer, query, thought))

    def whole_reply(self, text: str) -> list[int]:
        """A reply as it is written, to the end of its turn."""
        return self._encode(f"{text}<|eot_id|>")

    @torch.inference_mode()
    def log_odds(self, query: str, thought: str) -> Mapping[RiskLevel, float]:
        """The logarithm of each label string's share."""
        asked = [*self.tokens(query, thought), *self._encode('"Judgment":')]
        scores = {}
        for level, label in LABELS.items():
            written = self._encode(f" {label}")
            logits = self.model(input_ids=torch.tensor([asked + written])).logits[0].double()
            guesses = logits.log_softmax(-1)
            scores[level] = sum(
                float(guesses[len(asked) - 1 + at, token]) for at, token in enumerate(written)
            )
            if level is RiskLevel.SAFE:  # it is the whole string: no point follows
                [point] = self._encode(".")
                scores[level] += math.log1p(-math.exp(float(guesses[-1, point])))
        total = math.log(sum(map(math.exp, scores.values())))
        return {level: score - total for level, score in scores.items()}

    def _encode(self, text: str, *, split_special_tokens: bool = False) -> list[int]:
        found = self.tokenizer(text, add_special_tokens=False, split_special_tokens=split_special_tokens)
        return list(found["input_ids"])
