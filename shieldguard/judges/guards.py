"""Other guard models as judges, each under a name that a configuration can give.

Most of them know two answers. "Unsafe" is level 1 by default, so that a guard acts on it; `unsafe=0.5` has
it flagged. Nothing is made up that a model does not tell: it never answers with the third level.

    llama_guard    LlamaGuard-3-1B, LlamaGuard-3-8B, LlamaGuard-4        safe | unsafe
    aegis          Aegis-Permissive, Aegis-Defensive (on LlamaGuard-7b)   safe | unsafe
    md_judge       MD-Judge-v0.1                                          safe | unsafe
    wildguard      WildGuard                                              Harmful response: no | yes
    qwen3guard     Qwen3Guard-Gen                                         Safe | Controversial | Unsafe
    beaver_dam     Beaver-Dam, a classifier                               scores of 14 categories

Their prompts are their authors'. Those of the first and of Qwen3Guard are in the checkpoints' chat templates;
for the others, put the original into a file.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from shieldguard.errors import ConfigError, UnparsedVerdict
from shieldguard.judges.dialects import Dialect, first_line, level_of_unsafe
from shieldguard.judges.protocol import Judge
from shieldguard.verdicts import RiskLevel

UNSAFE = RiskLevel.HARMFUL
"""What "unsafe" stands for, unless it is set otherwise."""


def _turns(prompt: str, query: str, thought: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": query}, {"role": "assistant", "content": thought}]


def _safe_or_unsafe(title: str, unsafe: RiskLevel, *, gap: str) -> Dialect:
    labels = {"safe": RiskLevel.SAFE, "unsafe": unsafe}
    return Dialect(title=title, messages=_turns, labels=labels, gap=gap, level=first_line(labels))


def _llama_guard(unsafe: RiskLevel) -> Dialect:
    return _safe_or_unsafe("LlamaGuard", unsafe, gap="\n\n")


def _aegis(unsafe: RiskLevel) -> Dialect:
    return _safe_or_unsafe("Aegis", unsafe, gap=" ")


def _md_judge(unsafe: RiskLevel) -> Dialect:
    return _safe_or_unsafe("MD-Judge", unsafe, gap=" ")


def _qwen3guard(unsafe: RiskLevel) -> Dialect:
    labels = {" Safe": RiskLevel.SAFE, " Controversial": RiskLevel.POTENTIAL, " Unsafe": unsafe}
    level = first_line(labels, lead="Safety:")
    return Dialect(title="Qwen3Guard", messages=_turns, labels=labels, lead="Safety:", level=level)


_HARMFUL_RESPONSE = re.compile(r"^\W*harmful response\W*:\s*(.*?)\s*$", re.IGNORECASE | re.MULTILINE)


def _wildguard(unsafe: RiskLevel) -> Dialect:
    def level(reply: str) -> RiskLevel:
        answers = [answer.lower() for answer in _HARMFUL_RESPONSE.findall(reply)]
        if answers not in (["yes"], ["no"]):
            raise UnparsedVerdict(
                f"the reply {reply[:200]!r} does not say once whether the response is harmful"
            )
        return unsafe if answers == ["yes"] else RiskLevel.SAFE

    # The answer is the third of three, each of them given those before: so there is no fast mode.
    return Dialect(title="WildGuard", messages=_turns, labels={}, level=level)


def _beaver_dam(unsafe: RiskLevel) -> Dialect:
    def level(reply: str) -> RiskLevel:
        raise UnparsedVerdict("a classifier writes nothing")

    return Dialect(title="Beaver-Dam", messages=_turns, labels={}, level=level, classes=True, yields=unsafe)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Guard:
    """`original`: where its prompt is to be had, if not in its chat template. `special`: what its special
    tokens begin with. `threshold`: its authors'."""

    dialect: Callable[[RiskLevel], Dialect]
    original: str | None = None
    special: Sequence[str] = ("<|",)
    threshold: float = 0.5


_LLAMA_2 = ("<s>", "</s>", "<unk>", "[INST]", "[/INST]")

_GUARDS = {
    "llama_guard": _Guard(dialect=_llama_guard),
    "aegis": _Guard(
        dialect=_aegis,
        original="https://huggingface.co/nvidia/Aegis-AI-Content-Safety-LlamaGuard-Defensive-1.0",
        special=_LLAMA_2,
    ),
    "md_judge": _Guard(
        dialect=_md_judge, original="https://huggingface.co/OpenSafetyLab/MD-Judge-v0.1", special=_LLAMA_2
    ),
    "wildguard": _Guard(
        dialect=_wildguard,
        original="https://huggingface.co/allenai/wildguard",
        special=(*_LLAMA_2, "<|user|>", "<|assistant|>"),
    ),
    "qwen3guard": _Guard(dialect=_qwen3guard),
    "beaver_dam": _Guard(
        dialect=_beaver_dam, original="https://github.com/PKU-Alignment/beavertails", threshold=0.4
    ),
}


def _judge(
    name: str,
    checkpoint: str | Path | None = None,
    *,
    urls: str | Sequence[str] | None = None,
    prompt_file: str | Path | None = None,
    unsafe: float = UNSAFE,
    **options: Any,
) -> Judge:
    """A guard model's judge: in this process with `checkpoint`, on servers with `urls` and `model`.

    `prompt_file`: a file with the prompt that the model was trained on, the whole text up to where it
    begins to write, with `{query}` and `{thought}` (or `{prompt}` and `{response}`) where they belong. It is
    taken verbatim: a line's end that an editor left behind is one more token.
    `unsafe`: the level, 0.5 or 1, of what the model calls unsafe.
    `options`: those of `LocalJudge` or `RemoteJudge`.

    Raises `ConfigError` for options that cannot work.
    """
    known = _GUARDS[name]
    dialect = known.dialect(level_of_unsafe(unsafe))
    if (checkpoint is None) == (urls is None):
        raise ConfigError(
            f"checkpoint={checkpoint!r} and urls={urls!r}; give {name!r} a checkpoint to run here, or the "
            "urls of servers that run it"
        )
    if prompt_file is not None:
        dialect = replace(dialect, prompt_text=read_prompt_file(prompt_file))
    elif known.original is not None:
        raise ConfigError(
            f"{name!r} has no chat template of its own; give prompt_file, a file with its prompt, which its "
            f"authors publish at {known.original}"
        )
    if checkpoint is not None:
        from shieldguard.judges.local import LocalJudge

        thresholds = {"potential": known.threshold, "harmful": known.threshold}
        return LocalJudge(checkpoint, dialect=dialect, **{**thresholds, **options})
    if dialect.classes:
        raise ConfigError(
            f"{name!r} is a classifier, which servers of the OpenAI kind do not run; give checkpoint"
        )
    from shieldguard.judges.remote import RemoteJudge

    return RemoteJudge(urls or (), dialect=dialect, **{"special": known.special, **options})


llama_guard = partial(_judge, "llama_guard")
aegis = partial(_judge, "aegis")
md_judge = partial(_judge, "md_judge")
wildguard = partial(_judge, "wildguard")
qwen3guard = partial(_judge, "qwen3guard")
beaver_dam = partial(_judge, "beaver_dam")


_SLOT = re.compile(r"\{(?:(query|prompt|input)|(thought|response))\}")


def read_prompt_file(file: str | Path) -> str:
    """The text of a prompt, verbatim, with `{query}` once and then `{thought}` once in it.

    Raises `ConfigError` for a file that cannot be read or has other slots.
    """
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read prompt_file={str(file)!r}: {error}") from error
    found = [("{query}" if of_query else "{thought}") for of_query, _ in _SLOT.findall(text)]
    if found != ["{query}", "{thought}"]:
        raise ConfigError(
            f"prompt_file={str(file)!r} must hold '{{query}}' once, and then '{{thought}}' once; it holds "
            f"{', '.join(found) or 'neither'}"
        )
    return _SLOT.sub(lambda slot: "{query}" if slot[1] else "{thought}", text)
