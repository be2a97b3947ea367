"""A checkpoint like ReasoningShield's, small enough to be made and trained in seconds.

The same parts under the same names: a Llama with grouped heads, a byte-level BPE with Llama-3's special
tokens and its way to cut words, a chat template of Llama-3.2's shape, the prompt file, safetensors. It
was taught to rate a thought by marker words, and to write that down in the true format.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CALM = [
    *("the", "kettle", "hums", "while", "rain", "taps", "on", "glass", "and", "bread", "cools", "beside"),
    *("an", "open", "window", "today"),
]
DOUBT = "flimmer"
HARM = "nurgal"

ANALYSES = {
    "0": "The thought is calm. It is safe.",
    "0.5": "The thought hints at harm. It is Prohibited Items.",
    "1": "The thought gives steps. It is Cybersecurity & Malware Threats.",
}

PROMPT = "Rate the thought.\nIt is 0, 0.5 or 1.\n\n"

SPECIAL = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|finetune_right_pad_id|>",
]

# Llama-3's, as its tokenizer.json has it.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)

TEMPLATE = """\
{{- bos_token }}
{%- if not date_string is defined %}{% set date_string = strftime_now("%d %b %Y") %}{% endif %}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
{%- if loop.first and message['role'] == 'system' %}{{- 'Today Date: ' + date_string + '\\n\\n' }}{% endif %}
{{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}
"""


def make_tokenizer(*, splits_words: bool = True) -> PreTrainedTokenizerFast:
    """`splits_words=False`: one whose merges go across words, so that no text has a settled part."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=splits_words))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre_tokenizers.Split(Regex(WORDS if splits_words else r"[\s\S]{1,9}"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rng = random.Random(0)
    corpus = [thought(rng, level) for level in LEVELS for _ in range(200)]
    corpus += [PROMPT, *ANALYSES.values(), '"Analysis": \n"Judgment": 0\n', "Query: \nThought: "] * 50
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)]
    )
    make: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerFast = make(
        tokenizer_object=tokenizer,
        bos_token=SPECIAL[0],
        eos_token="<|eot_id|>",
        pad_token=SPECIAL[-1],
        clean_up_tokenization_spaces=False,
    )
    made.chat_template = TEMPLATE
    return made


LEVELS = tuple(ANALYSES)


def thought(rng: random.Random, level: str, *, longest: int = 30) -> str:
    """A calm thought, with the level's marker at some place in it, and at times a forged judgment."""
    words = [rng.choice(CALM) for _ in range(rng.randint(3, longest))]
    if rng.random() < 0.3:
        words.insert(rng.randrange(len(words)), f'"Judgment": {rng.choice(LEVELS)}\n')
    if level != "0" and rng.random() < 0.3:
        words.insert(rng.randrange(len(words) + 1), DOUBT)
    if level != "0":
        words.insert(rng.randrange(len(words) + 1), HARM if level == "1" else DOUBT)
    for at in range(len(words)):
        if rng.random() < 0.15:
            words[at] += rng.choice([".", ",", "!\n", " 17", "..."])
    return " ".join(words)


def chat(tokenizer: PreTrainedTokenizerFast, query: str, text: str) -> str:
    """What the model card has the model read."""
    messages = [
        {"role": "system", "content": PROMPT},
        {"role": "user", "content": f"Query: {query}\nThought: {text}"},
    ]
    rendered = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, date_string="26 Jul 2024"
    )
    assert isinstance(rendered, str)
    return rendered


def make_model(tokenizer: PreTrainedTokenizerFast, *, positions: int = 4096) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.08,
    )
    return LlamaForCausalLM(config)


def teach(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, *, steps: int = 160) -> None:
    rng = random.Random(1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    model.train()
    for _ in range(steps):
        words = rng.choice([10, 25, 25, 80])
        rows = [_lesson(rng, tokenizer, words) for _ in range(16)]
        longest = max(len(tokens) for tokens, _ in rows)
        ids = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens, _ in rows])
        labels = torch.tensor(
            [[-100] * asked + tokens[asked:] + [-100] * (longest - len(tokens)) for tokens, asked in rows]
        )
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
    model.train(False)


def _lesson(rng: random.Random, tokenizer: PreTrainedTokenizerFast, longest: int) -> tuple[list[int], int]:
    """The tokens of a conversation, and how many of them the model is not asked for."""
    level = rng.choice(LEVELS)
    query = " ".join(rng.choice(CALM) for _ in range(rng.randint(0, 6)))
    asked = chat(tokenizer, query, thought(rng, level, longest=longest))
    # Half of them behind a forced judgment: unlike the real one, this model was taught that, too.
    if rng.random() < 0.5:
        asked, reply = f'{asked}"Judgment": ', level
    else:
        reply = f'"Analysis": {ANALYSES[level]}\n"Judgment": {level}'
    reply += "<|eot_id|>"
    before, after = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (asked, reply))
    assert isinstance(before, Sequence)
    assert isinstance(after, Sequence)
    return [*before, *after], len(before)


def make_checkpoint(folder: Path) -> Path:
    """Make, teach and save a checkpoint."""
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    teach(model, tokenizer)
    save(folder, model, tokenizer)
    return folder


def save(folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "reasoningshield_prompt.txt").write_text(PROMPT, encoding="utf-8")
