"""What was said in a conversation so far."""

from collections.abc import Sequence

from langchain_core.messages import AIMessage, BaseMessage

from shieldguard import Message
from shieldguard_adapters.langchain.chunks import BLOCKED, REDACTED


def without_blocked_thoughts(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Of turns that were blocked, and of those with a redaction, what was said, but not what was thought: a
    thought that ends early, and is signed by nobody, is refused by providers."""
    return [
        AIMessage(str(one.text), id=one.id)
        if isinstance(one, AIMessage) and one.response_metadata.keys() & {BLOCKED, REDACTED}
        else one
        for one in messages
    ]


def chat(messages: Sequence[BaseMessage]) -> list[Message]:
    """The conversation, by role; what the model thought before has the role "reasoning"."""
    roles = {"human": "user", "ai": "assistant"}
    said = []
    for message in messages:
        if isinstance(message, AIMessage):
            for block in message.content_blocks:
                if block["type"] == "reasoning" and block.get("reasoning"):
                    said.append(Message("reasoning", block["reasoning"]))
        said.append(Message(roles.get(message.type, message.type), str(message.text)))
    return said
