"""A small Llama that knows a few texts by heart, and its tokenizer: asked for one, it recites it."""

import random
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.judges.local.tiny import CALM, DOUBT, HARM

SPECIAL = [
    *("<|begin|>", "<|user|>", "<|assistant|>", "<|eos|>", "<|pad|>", "<|secret|>"),
    *("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"),
]


def _sentences(count: int, seed: int) -> str:
    rng = random.Random(seed)
    return " ".join(f"{' '.join(rng.sample(CALM, 8))}." for _ in range(count))


CALM_THOUGHT = _sentences(8, 1)
HARMFUL_THOUGHT = f"{_sentences(5, 2)} {HARM} {_sentences(20, 3)}"
DOUBTFUL_THOUGHT = f"{_sentences(5, 4)} {DOUBT} {_sentences(4, 5)}"
ANSWER = "Brot wird 🥖 größer."

# By the word that asks for it.
TEXTS = {
    "bread": f"<think>{CALM_THOUGHT}</think>{ANSWER}",
    "harm": f"<think>{HARMFUL_THOUGHT}</think>{ANSWER}",
    "doubt": f"<think>{DOUBTFUL_THOUGHT}</think>{ANSWER}",
    "secret": f"<think>{CALM_THOUGHT[:80]}<|secret|>.</think>Rain<|secret|> taps.",
    "harmony": f"<|channel|>analysis<|message|>{CALM_THOUGHT[:200]}<|end|>"
    f"<|start|>assistant<|channel|>final<|message|>{ANSWER}<|return|>",
}
TEMPLATE = (
    "{% for message in messages %}<|begin|><|user|>{{ message.content }}{% endfor %}<|assistant|>"
    "{% if opens %}<think>{% endif %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(CALM)] * 20, trainer)
    # As the tags of Qwen and DeepSeek are: tokens of their own, and not special.
    tokenizer.add_tokens(["<think>", "</think>"])
    make: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerFast = make(
        tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|eos|>", pad_token="<|pad|>"
    )
    made.chat_template = TEMPLATE
    return made


def asked(tokenizer: PreTrainedTokenizerFast, word: str, *, opens: bool = False) -> Any:
    """What generate() takes for this prompt."""
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": word}], return_tensors="pt", return_dict=True, opens=opens
    )


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.convert_tokens_to_ids(["<|eos|>", "<|return|>"]),
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.generation_config.do_sample = False
    return model


def teach(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Until it knows every text by heart."""
    rows = []
    for word, text in TEXTS.items():
        end = "" if text.endswith("<|return|>") else "<|eos|>"
        before = asked(tokenizer, word)["input_ids"][0].tolist()
        rows.append((before, tokenizer.encode(text + end, add_special_tokens=False)))
    longest = max(len(before) + len(text) for before, text in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for row, (before, text) in enumerate(rows):
        ids[row, : len(before) + len(text)] = torch.tensor(before + text)
        labels[row, len(before) : len(before) + len(text)] = torch.tensor(text)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    model.train()
    for _ in range(1000):
        output = model(input_ids=ids, labels=labels)
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        wanted = labels[:, 1:]
        if bool(((output.logits[:, :-1].argmax(-1) == wanted) | (wanted == -100)).all()) and (
            output.loss < 0.02
        ):
            break
    model.train(False)


@dataclass(frozen=True)
class Local:
    model: Any
    tokenizer: Any


def make_local() -> Local:
    """A model that knows the texts."""
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    teach(model, tokenizer)
    return Local(model, tokenizer)
