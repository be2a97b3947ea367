"""Guard `generate()` of a model in this process. Give a checkpoint of your own, and a question:

    python examples/local_generation.py Qwen/Qwen3-0.6B "Why does bread need salt?"

Without one it is a tiny model with random weights, which talks gibberish.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from shieldguard import Aborted, Answer, Guard, Reasoning, Redacted
from shieldguard.evaluation.random_weights import make
from shieldguard_adapters.transformers import guard_generate


def answer(checkpoint: str | Path, question: str) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint)
    messages = [{"role": "user", "content": question}]
    inputs = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    ).to(model.device)
    generation = guard_generate(
        model, tokenizer, inputs, Guard(), query=question, max_new_tokens=200, do_sample=True
    )
    with generation as stream:
        for event in stream:
            match event:
                case Reasoning(text) | Answer(text) | Redacted(notice=text) | Aborted(notice=text):
                    print(text, end="", flush=True)
    report = generation.report
    judged = report.reasoning.judged + report.answer.judged
    print(f"\n{report.ended}, level {report.level}: {judged} characters judged")


def main() -> None:
    show_no_bars: Any = logging.disable_progress_bar
    show_no_bars()
    torch.manual_seed(0)
    question = sys.argv[2] if len(sys.argv) > 2 else "Why does bread need salt?"
    if len(sys.argv) > 1:
        answer(sys.argv[1], question)
        return
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), "tiny")
        answer(folder, question)


if __name__ == "__main__":
    main()
