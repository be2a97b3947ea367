"""Which strings in what a frame says are text of the model's, and where they stand in it."""

import re
from collections.abc import Iterator, Set
from typing import Any

from shieldguard import WireError
from shieldguard_adapters.wire.jsons import Path

# The fields of a response that are no text of the model's: what was asked, and how it went.
META = frozenset(
    {
        *("id", "object", "status", "created_at", "completed_at", "model", "error", "incomplete_details"),
        *("usage", "service_tier", "background", "conversation", "previous_response_id", "prompt", "store"),
        *("instructions", "metadata", "tools", "tool_choice", "parallel_tool_calls", "max_tool_calls"),
        *("text", "reasoning", "temperature", "top_p", "top_logprobs", "max_output_tokens", "truncation"),
        *("image", "access_programs", "input_transformations", "moderation", "prompt_cache_diagnostics"),
        *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "safety_identifier", "user"),
        *("tool_usage", "frequency_penalty", "presence_penalty", "content_filters", "deleted"),
        *("kv_transfer_params", "ec_transfer_params", "metrics"),
    }
)
# Of an item and its parts, what is no text of the model's.
NOT_TEXT = frozenset(
    {
        *("id", "type", "status", "role", "phase", "item_id", "call_id", "created_by", "caller", "logprobs"),
        *("encrypted_content", "obfuscation", "format", "signature", "container_id", "fingerprint"),
        *("approval_request_id", "execution", "event_id", "response_id"),
    }
)
ERROR_NOT_TEXT = NOT_TEXT | {"code", "param"}  # its message may quote what could not be parsed
CITED = frozenset({"url", "title", "filename", "file_id"})  # by an annotation: not the model's words
_UNREADABLE = frozenset({"output_audio", "audio", "output_image", "image_generation_call"})
_IMAGE = re.compile(r"data:image/[a-z+]+;base64,[A-Za-z0-9+/]*={0,2}")


def texts_of(value: Any, not_text: Set[str]) -> Iterator[tuple[Path, str]]:
    """All texts in a value, whatever they are called, and where they stand in it. Raises `WireError` for
    what no judge of text can judge."""
    if isinstance(value, str):
        if value and not _IMAGE.fullmatch(value):
            yield (), value
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            for path, text in texts_of(inner, not_text):
                yield (place, *path), text
    elif isinstance(value, dict):
        if (kind := str(value.get("type"))) in _UNREADABLE:
            raise WireError(f"the response holds {kind!r}, which cannot be judged; ask for text alone")
        for key, inner in value.items():
            if key not in not_text:
                skipped = not_text | CITED if key == "annotations" else not_text
                for path, text in texts_of(inner, skipped):
                    yield (key, *path), text
