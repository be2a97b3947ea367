"""A checkpoint: its weights, its tokenizer and its prompt, loaded, or refused."""

import inspect
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch import Tensor
from transformers.utils.hub import cached_file

from shieldguard.errors import ConfigError, MissingDependency, ShieldguardError
from shieldguard.judges.contract import FALLBACK_PROMPT, PROMPT_FILE
from shieldguard.judges.local.attention import IMPLEMENTATION, Batch
from shieldguard.judges.local.int8 import quantise
from shieldguard.judges.local.rows import Shape

logger = logging.getLogger("shieldguard")

ADAPTER_FILE = "adapter_config.json"

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.bfloat16,  # of all but the weights of the layers
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What `from_pretrained` loaded. `prompt` is the system prompt, verbatim. `classes` are the names of what
    a classifier has scores for; other models have none."""

    model: Any
    tokenizer: Any
    prompt: str
    device: torch.device
    dtype: torch.dtype
    classes: Sequence[str] = ()

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        device: str | None,
        dtype: str | None,
        classes: bool = False,
        has_prompt: bool = True,
    ) -> "Checkpoint":
        """Load a folder, or a repository of the hub: a classifier with `classes`, else a model that writes.
        `has_prompt`: it comes with a system prompt.

        Raises `ConfigError` for what cannot be loaded.
        """
        name = str(name)
        where = chosen_device(device)
        kind = chosen_dtype(dtype, where)
        with loading(name, where):
            tokenizer = transformers.AutoTokenizer.from_pretrained(name)
            model = _model(name, DTYPES[kind], classes)
            if kind == "int8":
                quantise(model)
            model = model.to(where).eval().requires_grad_(False)
        return cls(
            model=model,
            tokenizer=tokenizer,
            prompt=prompt_of(name) if has_prompt else "",
            device=where,
            dtype=DTYPES[kind],
            classes=[model.config.id2label[at] for at in range(model.config.num_labels)] if classes else (),
        )

    @property
    def shape(self) -> Shape:
        """What a token's row of keys and values is made of."""
        config = self.config
        return Shape(
            layers=config.num_hidden_layers,
            heads=config.num_key_value_heads,
            size=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
            dtype=self.dtype,
            device=self.device,
        )

    @property
    def config(self) -> Any:
        """That of the model's text."""
        return self.model.config.get_text_config()

    @property
    def positions(self) -> int:
        """How many tokens the model was made for, as long as each of them is to see all those before it: some
        models have layers that look back no further than a window, or not beyond a chunk's beginning."""
        bounds = (
            getattr(self.config, name, None)
            for name in ("max_position_embeddings", "sliding_window", "attention_chunk_size", "floor_scale")
        )
        return min(int(bound) for bound in bounds if bound)

    @property
    def heads_per_group(self) -> int:
        """How many query heads share a key-value head."""
        return int(self.config.num_attention_heads // self.config.num_key_value_heads)

    def compute(self, tokens: Tensor, positions: Tensor, cache: Batch, asked: Tensor) -> Tensor:
        """The logits of the next token, or of the classes, at the places that are asked for."""
        model = self.model.base_model if self.classes else self.model
        # transformers 5.24 renamed the argument
        renamed = "cache" in inspect.signature(model.forward).parameters
        options = {
            "input_ids": tokens,
            "position_ids": positions,
            "use_cache": True,
            "cache" if renamed else "past_key_values": cache,
        }
        if self.classes:
            seen = model(**options).last_hidden_state[0, asked]
            return cast(Tensor, self.model.score(seen))
        return cast(Tensor, model(**options, logits_to_keep=asked).logits[0])

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that end what the model writes."""
        found: set[int] = set()
        for ends in (self.model.generation_config.eos_token_id, self.tokenizer.eos_token_id):
            found |= set(ends) if isinstance(ends, list) else {ends} - {None}
        return frozenset(found)

    def decode(self, tokens: list[int]) -> str:
        """What the model wrote."""
        text: str = self.tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


@contextmanager
def loading(name: str, device: torch.device) -> Iterator[None]:
    """Turns what goes wrong while a checkpoint is loaded into a `ConfigError` that says what to do."""
    try:
        yield
    except ShieldguardError:
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _no_memory(name, device, error) from error
    except Exception as error:
        if "memory" in str(error).lower():
            raise _no_memory(name, device, error) from error
        raise ConfigError(
            f"cannot load the checkpoint {name!r}: {error}; give a folder with config.json, "
            "model.safetensors and tokenizer.json, or the name of a repository on the hub (which needs "
            "a network, or a copy in the local cache)"
        ) from error


def chosen_device(device: str | None) -> torch.device:
    if device is None:
        if torch.cuda.is_available():
            device = "cuda"
        else:
            device = "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        where = torch.device(device)
        torch.empty(1, device=where)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"device={device!r} cannot be used: {error}; take 'cpu', 'cuda' or 'mps'"
        ) from error
    return where


def chosen_dtype(dtype: str | None, device: torch.device) -> str:
    """bfloat16 where the hardware computes in it, else float16 on a GPU and float32 on a CPU."""
    if dtype is None:
        if device.type == "cuda":
            return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
        if device.type == "cpu":
            return "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"
        return "float16"
    if dtype not in DTYPES:
        raise ConfigError(f"dtype={dtype!r}; choose one of {', '.join(map(repr, DTYPES))}")
    if dtype == "int8" and device.type != "cpu":
        raise ConfigError(f"dtype='int8' is for a CPU, not for {str(device)!r}; choose 'bfloat16'")
    return dtype


def _model(name: str, dtype: torch.dtype, classes: bool) -> Any:
    kind: Any = transformers.AutoModelForCausalLM
    if classes:
        kind = transformers.AutoModelForSequenceClassification
    adapter = cached_file(
        name,
        ADAPTER_FILE,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    base = name if adapter is None else str(json.loads(Path(adapter).read_text())["base_model_name_or_path"])
    model, found = kind.from_pretrained(
        base,
        dtype=dtype,
        attn_implementation=IMPLEMENTATION,
        output_loading_info=True,
    )
    check(base, model, found)
    if adapter is None:
        return model
    try:
        from peft import PeftModel
    except ImportError as error:
        raise MissingDependency("peft", "peft") from error
    return PeftModel.from_pretrained(model, name).merge_and_unload()


def check(name: str, model: Any, found: dict[str, Any]) -> None:
    """transformers fills in weights that a file lacks with random numbers, and only warns."""
    if missing := sorted(found["missing_keys"]):
        raise ConfigError(
            f"the checkpoint {name!r} lacks {len(missing)} weights, {missing[0]!r} among them; "
            "download it anew"
        )
    if not hasattr(model.config.get_text_config(), "num_key_value_heads"):
        raise ConfigError(
            f"the checkpoint {name!r} is a {model.config.model_type!r}; only models with an attention such "
            "as Llama's can be run"
        )


def _no_memory(name: str, device: torch.device, error: BaseException) -> ConfigError:
    return ConfigError(
        f"not enough memory on {str(device)!r} for the checkpoint {name!r}: {error}; "
        "take a smaller one, another device, or dtype='bfloat16'"
    )


def prompt_of(name: str) -> str:
    """The system prompt that lies beside a checkpoint's weights, else one of our own."""
    try:
        file = cached_file(name, PROMPT_FILE, _raise_exceptions_for_missing_entries=False)
        if file is not None:
            return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {PROMPT_FILE!r} of the checkpoint {name!r}: {error}") from error
    logger.warning("shieldguard: the checkpoint %r has no %s; a prompt of our own is used", name, PROMPT_FILE)
    return FALLBACK_PROMPT
