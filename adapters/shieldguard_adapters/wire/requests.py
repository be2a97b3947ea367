"""What requests have in common, whoever they are to."""

from typing import Any


def content_text(content: Any) -> str:
    """What the content of a message says: a text, or a list of parts, each by its text or else its type."""
    if isinstance(content, list):
        parts = (part for part in content if isinstance(part, dict))
        return "\n".join(str(part.get("text", f"[{part.get('type')}]")) for part in parts)
    return content if isinstance(content, str) else ""


def asks_for_text(format_: Any) -> bool:
    """Whether OpenAI's format of an answer is one that nobody parses."""
    return not isinstance(format_, dict) or format_.get("type", "text") == "text"
