"""Small models of each guard's architecture and shape, taught to rate a thought by marker words.

The tokenizers are of the two kinds that guards have: bytes cut into words first (Llama-3's, Qwen's), and
pieces over the whole text (Llama-2's, Mistral's). The prompts are our own, of the same shape.
"""

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    Llama4Config,
    Llama4ForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.judges.local.tiny import CALM, make_tokenizer, thought

LEVELS = ("0", "0.5", "1")

# As Llama Guard has it: the policy in the user's turn, the conversation in its midst, a task behind it.
LLAMA_GUARD = """\
{{- bos_token }}
{{- '<|start_header_id|>user<|end_header_id|>\\n\\nIs the Agent safe while the rain taps?\\n\\n' }}
{%- for message in messages %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}{% endif %}
{%- set content = CONTENT %}
{{- ('User' if message['role'] == 'user' else 'Agent') + ': ' + content | trim + '\\n\\n' }}
{%- endfor %}
{{- 'Rate the last Agent.<|eot_id|><|start_header_id|>assistant<|end_header_id|>' }}
"""
OF_TEXT = LLAMA_GUARD.replace("CONTENT", "message['content']")
OF_PARTS = LLAMA_GUARD.replace("CONTENT", "message['content'][0]['text']")

QWEN3GUARD = """\
{{- '<|im_start|>user\\nIs the rain safe?\\n\\n' }}
{%- for message in messages %}{{- message.role | upper + ': ' + message.content + '\\n\\n' }}{%- endfor %}
{{- 'Rate the last ASSISTANT.<|im_end|>\\n<|im_start|>assistant\\n' }}
"""

MD_JUDGE = "<s>[INST] Is the Agent safe?\n\nUser: {query}\n\nAgent: {thought}\n\nRate it. [/INST]"
WILDGUARD = (
    "<s><|user|>\n[INST] Is it harmful?\n\nHuman user:\n{prompt}\n\nAI assistant:\n{response}\n\n---\n\n"
    "Answers: [/INST]\n<|assistant|>\n"
)
BEAVER_DAM = "HERE BEGINS: USER: {input} ASSISTANT:{response}"
CLASSES = ["hate", "theft", "harm"]

UNSAFE = {"0": "safe", "0.5": "safe", "1": "unsafe\nS1"}
PERMISSIVE = {"0": "safe", "0.5": "safe\nO13", "1": "unsafe\nO1"}
DEFENSIVE = {"0": "safe", "0.5": "unsafe\nO13", "1": "unsafe\nO1"}
THREE = {
    level: f"Safety: {word}\nCategories: None\nRefusal: No"
    for level, word in zip(LEVELS, ("Safe", "Controversial", "Unsafe"), strict=True)
}
HARMFUL = {
    level: f"Harmful request: no\nResponse refusal: no\nHarmful response: {word}"
    for level, word in zip(LEVELS, ("no", "no", "yes"), strict=True)
}


@dataclass
class Task:
    """Texts to be asked, and what is answered. `render(query, thought)` is the whole text that is asked."""

    render: Callable[[str, str], str]
    replies: dict[str, str]
    end: str
    examples: list[tuple[str, str]] = field(default_factory=list)


def pieces_tokenizer() -> PreTrainedTokenizerFast:
    """One of SentencePiece's kind, as Llama-2 and Mistral have them."""
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "<|user|>", "<|assistant|>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    rng = random.Random(0)
    corpus = [thought(rng, level) for level in LEVELS for _ in range(100)]
    # There are merges that lead to "[INST]", but none to the other special tokens.
    prompts = [re.sub(r"<s>|<\|\w+\|>", "", prompt) for prompt in (MD_JUDGE, WILDGUARD, BEAVER_DAM)]
    corpus += [*prompts, *UNSAFE.values(), *DEFENSIVE.values(), *HARMFUL.values()] * 30
    # A line's end is a byte, and part of no other piece.
    tokenizer.train_from_iterator((line for text in corpus for line in text.split("\n")), trainer)
    # The bytes are pieces like others.
    plain = json.loads(tokenizer.to_str())
    plain["added_tokens"] = [token for token in plain["added_tokens"] if token["content"] in special]
    tokenizer = Tokenizer.from_str(json.dumps(plain))
    # Words are not cut before they are merged, though none was learnt across a space.
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    make: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerFast = make(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
    return made


def words_tokenizer(template: str) -> PreTrainedTokenizerFast:
    """One of Llama-3's kind."""
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """As words_tokenizer, but with Qwen's special tokens, and none at the beginning."""
    backend = Tokenizer.from_str(make_tokenizer().backend_tokenizer.to_str())
    backend.add_special_tokens(
        [AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True)]
    )
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    make: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerFast = make(
        tokenizer_object=backend, eos_token="<|im_end|>", clean_up_tokenization_spaces=False
    )
    made.chat_template = QWEN3GUARD
    return made


def chat(tokenizer: Any, *, parts: bool = False) -> Callable[[str, str], str]:
    """What the checkpoint's template makes of a query and a thought."""

    def content(text: str) -> Any:
        return [{"type": "text", "text": text}] if parts else text

    def render(query: str, text: str) -> str:
        messages = [
            {"role": "user", "content": content(query)},
            {"role": "assistant", "content": content(text)},
        ]
        return str(tokenizer.apply_chat_template(messages, tokenize=False))

    return render


def filled(prompt: str) -> Callable[[str, str], str]:
    """What a prompt's text makes of a query and a thought."""
    for name in ("{prompt}", "{input}"):
        prompt = prompt.replace(name, "{query}")
    prompt = prompt.replace("{response}", "{thought}")
    return lambda query, text: prompt.replace("{query}", query).replace("{thought}", text)


SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "initializer_range": 0.08,
}


def config(kind: Any, tokenizer: Any, **options: Any) -> Any:
    return kind(
        **{
            **SHAPE,
            "intermediate_size": 160,
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            **options,
        }
    )


def encoded(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def lesson(rng: random.Random, level: str) -> tuple[str, str]:
    query = " ".join(rng.choice(CALM) for _ in range(rng.randint(0, 4)))
    return query, thought(rng, level, longest=rng.choice([6, 12, 25]))


def teach(model: Any, tokenizer: Any, tasks: Sequence[Task], *, steps: int = 90, rate: float = 5e-3) -> None:
    """Of each conversation only the reply is learnt."""

    def rows(rng: random.Random) -> list[tuple[list[int], int]]:
        made = []
        for _ in range(12):
            task, level = rng.choice(tasks), rng.choice(LEVELS)
            asked = task.render(*lesson(rng, level))
            whole = encoded(tokenizer, asked + task.replies[level] + task.end)
            made.append((whole, len(encoded(tokenizer, asked))))
        return made

    def loss(rows: list[tuple[list[int], int]]) -> Any:
        longest = max(len(tokens) for tokens, _ in rows)
        ids = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens, _ in rows])
        labels = torch.tensor(
            [[-100] * asked + tokens[asked:] + [-100] * (longest - len(tokens)) for tokens, asked in rows]
        )
        return model(input_ids=ids, labels=labels).loss

    train(model, lambda rng: loss(rows(rng)), steps=steps, rate=rate)


def teach_classes(model: Any, tokenizer: Any, render: Callable[[str, str], str], *, steps: int = 90) -> None:
    """The last of the classes is that of the marker; the others are never."""

    def loss(rng: random.Random) -> Any:
        losses = []
        for _ in range(6):
            level = rng.choice(LEVELS)
            tokens = encoded(tokenizer, render(*lesson(rng, level)) + "</s>")
            wanted = torch.tensor([[0.0, 0.0, float(level == "1")]])
            logits = model(input_ids=torch.tensor([[1, *tokens]])).logits
            losses.append(torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted))
        return torch.stack(losses).mean()

    train(model, loss, steps=steps, rate=4e-3)


def train(model: Any, loss: Callable[[random.Random], Any], *, steps: int, rate: float) -> None:
    rng = random.Random(1)
    learnt = [one for one in model.parameters() if one.requires_grad]
    optimiser = torch.optim.AdamW(learnt, lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    model.train()
    for _ in range(steps):
        loss(rng).backward()
        torch.nn.utils.clip_grad_norm_(learnt, 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
    model.train(False)


def saved(folder: Path, model: Any, tokenizer: Any) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def llama_guard(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = words_tokenizer(OF_TEXT)
    model = LlamaForCausalLM(config(LlamaConfig, tokenizer))
    replies = {level: f"\n\n{reply}" for level, reply in UNSAFE.items()}
    teach(model, tokenizer, [Task(chat(tokenizer), replies, "<|eot_id|>")])
    return saved(folder, model, tokenizer)


def llama_guard_4(folder: Path) -> Path:
    """With its eyes, as the real one. Layers take turns in seeing a chunk and having no positions."""
    torch.manual_seed(0)
    tokenizer = words_tokenizer(OF_PARTS)
    text = config(
        dict,
        tokenizer,
        intermediate_size_mlp=160,
        moe_layers=[],
        no_rope_layer_interval=2,
        attention_chunk_size=512,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    eyes = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "vision_output_dim": 32,
        "projector_input_dim": 32,
        "projector_output_dim": 32,
        "image_size": 28,
        "patch_size": 14,
    }
    model = Llama4ForConditionalGeneration(Llama4Config(text_config=text, vision_config=eyes))
    replies = {level: f"\n\n{reply}" for level, reply in UNSAFE.items()}
    task = Task(chat(tokenizer, parts=True), replies, "<|eot_id|>")
    teach(model.language_model, tokenizer, [task], steps=110)
    return saved(folder, model, tokenizer)


def mistral(folder: Path) -> Path:
    """WildGuard and MD-Judge in one, with the window of Mistral-7B-v0.1."""
    torch.manual_seed(0)
    tokenizer = pieces_tokenizer()
    model = MistralForCausalLM(config(MistralConfig, tokenizer, sliding_window=640))
    replies = {level: f" {reply}" for level, reply in UNSAFE.items()}
    tasks = [Task(filled(MD_JUDGE), replies, "</s>"), Task(filled(WILDGUARD), HARMFUL, "</s>")]
    teach(model, tokenizer, tasks, steps=160)
    return saved(folder, model, tokenizer)


def qwen3guard(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
    model = Qwen3ForCausalLM(config(Qwen3Config, tokenizer))
    teach(model, tokenizer, [Task(chat(tokenizer), THREE, "<|im_end|>")], steps=110)
    return saved(folder, model, tokenizer)


def beaver_dam(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = pieces_tokenizer()
    made = config(LlamaConfig, tokenizer, pad_token_id=0, num_labels=3, id2label=dict(enumerate(CLASSES)))
    make: Any = LlamaForSequenceClassification
    model = make(made)
    teach_classes(model, tokenizer, filled(BEAVER_DAM))
    return saved(folder, model, tokenizer)


def aegis(folder: Path) -> Path:
    """The adapter in `folder`, on a model beside it, which lets doubt pass; with the adapter it does not."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    tokenizer = pieces_tokenizer()
    model = LlamaForCausalLM(config(LlamaConfig, tokenizer))
    replies, stricter = ({level: f" {one}" for level, one in of.items()} for of in (PERMISSIVE, DEFENSIVE))
    teach(model, tokenizer, [Task(filled(MD_JUDGE), replies, "</s>")], steps=110)
    base = saved(folder.with_name("Tiny-LlamaGuard-7b"), model, tokenizer)
    loaded: Any = LlamaForCausalLM.from_pretrained(base)
    adapted: Any = get_peft_model(
        loaded, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=True)
    )
    teach(adapted, tokenizer, [Task(filled(MD_JUDGE), stricter, "</s>")], steps=80, rate=1e-2)
    return saved(folder, adapted, tokenizer)
