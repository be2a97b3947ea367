"""A guard in LlamaIndex: a model whose chunks are judged before any agent, callback or instrumentation gets
them.

`GuardedLLM(llm, guard)` stands for `llm`, in agents, too. What the guard aborts ends with a notice in the
place of all that was said, and with no tool calls. A redaction aborts, as each chunk repeats those before
it. What the provider sent (`raw`) is left out: it may hold what the model's class does not read.
"""

from shieldguard import MissingDependency

try:
    from shieldguard_adapters.llama_index.model import GuardedLLM
except ModuleNotFoundError as error:
    raise MissingDependency(error.name or "llama_index", "llama-index") from None

__all__ = ["GuardedLLM"]
