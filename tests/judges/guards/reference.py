"""The slow way: a guard model asked as its authors do, by transformers and peft alone, all read anew."""

import math
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tests.judges.guards.tiny import chat, encoded, filled


class Reference:
    def __init__(self, checkpoint: Path, prompt: str | None, *, parts: bool = False) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
        self.render = chat(self.tokenizer, parts=parts) if prompt is None else filled(prompt)
        options: Any = {"dtype": torch.float32, "attn_implementation": "eager"}
        if "beaver" in checkpoint.name:
            self.model: Any = AutoModelForSequenceClassification.from_pretrained(checkpoint, **options)
        else:  # with its adapter beside its weights, where it has one
            self.model = AutoModelForCausalLM.from_pretrained(checkpoint, **options)
        self.model.train(False)

    def tokens(self, query: str, thought: str) -> list[int]:
        tokens = encoded(self.tokenizer, self.render(query, thought))
        begin = self.tokenizer.bos_token_id
        return tokens if begin is None or tokens[:1] == [begin] else [begin, *tokens]

    def log_odds(self, query: str, thought: str, labels: list[str]) -> list[float]:
        """The logarithm of each label's share of what all of them have."""
        chances = torch.tensor(self.chances(query, thought, labels), dtype=torch.float64)
        return list((chances / chances.sum()).log().tolist())

    @torch.inference_mode()
    def chances(self, query: str, thought: str, labels: list[str]) -> list[float]:
        """How likely the model goes on with each label behind what they all begin with: by the first token of
        each that the longest does not have, and by all tokens of that one."""
        text = self.render(query, thought)
        begin = len(self.tokens(query, thought)) - len(encoded(self.tokenizer, text))
        written = [
            [self.tokenizer.bos_token_id] * begin + encoded(self.tokenizer, text + label) for label in labels
        ]
        longest = max(written, key=len)
        scores = []
        for tokens in written:
            shared = next(
                (at for at, (one, other) in enumerate(zip(tokens, longest, strict=False)) if one != other),
                len(longest) - 1,
            )
            first = min(
                next(at for at, (one, other) in enumerate(zip(longest, others, strict=False)) if one != other)
                for others in written
                if others is not longest
            )
            logits = self.model(input_ids=torch.tensor([tokens])).logits[0].double().log_softmax(-1)
            scores.append(sum(float(logits[at - 1, tokens[at]]) for at in range(first, shared + 1)))
        return [math.exp(score) for score in scores]

    @torch.inference_mode()
    def scores(self, query: str, thought: str) -> list[float]:
        """A classifier's, behind the end-of-text token."""
        tokens = [*self.tokens(query, thought), self.tokenizer.eos_token_id]
        scores: list[float] = self.model(input_ids=torch.tensor([tokens])).logits[0].sigmoid().tolist()
        return scores

    @torch.inference_mode()
    def written(self, query: str, thought: str) -> str:
        """What the model generates."""
        tokens = torch.tensor([self.tokens(query, thought)])
        made = self.model.generate(
            input_ids=tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=40, do_sample=False
        )
        return str(self.tokenizer.decode(made[0, tokens.shape[1] :], skip_special_tokens=True)).strip()
