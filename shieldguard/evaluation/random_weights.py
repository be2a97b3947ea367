"""Checkpoints of a true shape with random weights: what they say means nothing, what they cost is real."""

import random
from pathlib import Path
from typing import Any

from shieldguard.errors import ConfigError, MissingDependency
from shieldguard.judges.contract import FALLBACK_PROMPT, PROMPT_FILE

# Llama-3.2's, on which ReasoningShield-1B and -3B were trained; and one for trying things out.
SHAPES: dict[str, dict[str, Any]] = {
    "1B": {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "head_dim": 64},
    "3B": {"hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 24, "head_dim": 128},
    "tiny": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 16,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
    },
}
_ALL: dict[str, Any] = {
    "num_key_value_heads": 8,
    "intermediate_size": 8192,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}

_PROMPT_CHARACTERS = 3510  # as many as the prompt of the published checkpoints has

_SPECIAL = {
    "<|begin_of_text|>": "bos_token",
    "<|eot_id|>": "eos_token",
    "<|start_header_id|>": "",
    "<|end_header_id|>": "",
}
_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' }}"
    "{{ message.content | trim + '<|eot_id|>' }}"
    "{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
)
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SENTENCES = (
    "The user wants to know how the two tariffs compare over a year, so I should set up the cost of each.",
    "Wait, the standing charge is per day and not per month; that changes the break-even point.",
    "Let me recompute: 365 days at 0.42 makes 153.30, and the unit price difference is 0.031.",
    "So below roughly 2,400 units the first tariff is cheaper, and above it the second one wins.",
    "I should also mention that prices may change, and that the estimate rests on last year's usage.",
    "Perhaps a small table would help; the answer needs to stay short and easy to follow.",
)


def make(folder: Path, shape: str, tokenizer: Path | None = None) -> None:
    """Write a checkpoint. `tokenizer`: a GGUF file with Llama-3's vocabulary; without one a vocabulary of
    our own is used, which has about as many tokens a word for English.

    Raises `ConfigError` for a shape that is not in `SHAPES` and a file that cannot be read.
    """
    if shape not in SHAPES:
        raise ConfigError(f"shape={shape!r}; choose one of {', '.join(map(repr, SHAPES))}")
    try:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    except ImportError as error:
        raise MissingDependency(error.name or "torch", "local") from error
    made: Any = PreTrainedTokenizerFast
    words = made(
        tokenizer_object=_of_gguf(tokenizer) if tokenizer else _of_our_own(),
        clean_up_tokenization_spaces=False,
        **{role: token for token, role in _SPECIAL.items() if role},
    )
    words.chat_template = _TEMPLATE
    words.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        **{**_ALL, **SHAPES[shape]},
        vocab_size=128_256 if shape != "tiny" else len(words),
        rope_parameters=_ROPE,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        dtype=torch.bfloat16,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        LlamaForCausalLM(config).save_pretrained(folder)
    finally:
        torch.set_default_dtype(before)
    prompt = (FALLBACK_PROMPT * 9)[:_PROMPT_CHARACTERS]
    (folder / PROMPT_FILE).write_text(prompt, encoding="utf-8")


def prose(characters: int) -> str:
    """Harmless reasoning, by sentences, of at least this length."""
    rng = random.Random(0)
    text = ""
    while len(text) < characters:
        text += rng.choice(_SENTENCES) + rng.choice([" ", " ", "\n"])
    return text


def _of_gguf(file: Path) -> Any:
    from tokenizers import AddedToken, Tokenizer, models

    try:
        import gguf
    except ImportError as error:
        raise MissingDependency("gguf", "dev") from error
    try:
        fields = gguf.GGUFReader(file).fields
        tokens, merges, kinds = (
            fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges", "token_type")
        )
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"cannot read the vocabulary {str(file)!r}: {error!r}") from error
    vocabulary = {token: number for number, token in enumerate(tokens)}
    pairs = [tuple(merge.split(" ")) for merge in merges]
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs, ignore_merges=True))
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == gguf.TokenType.CONTROL]
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return _byte_level(made)


def _of_our_own() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    made = _byte_level(Tokenizer(models.BPE(ignore_merges=True)))
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([*_SENTENCES, FALLBACK_PROMPT] * 10, trainer)
    return made


def _byte_level(tokenizer: Any) -> Any:
    from tokenizers import Regex, decoders, pre_tokenizers

    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
