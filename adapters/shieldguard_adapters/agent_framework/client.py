"""A chat client of the framework's, guarded."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from copy import copy
from functools import partial
from typing import Any, TypeAlias, TypeVar

from agent_framework import (
    BaseChatClient,
    ChatResponse,
    ChatResponseUpdate,
    Content,
    Message,
    ResponseStream,
)

from shieldguard import Aborted, Guard, QueryFrom, SourceEvent, UnguardedClient, last_user_turn
from shieldguard import Message as Turn
from shieldguard_adapters.agent_framework.contents import Part, Reader, Writer
from shieldguard_adapters.sources import Reading, raise_if_told

Client = TypeVar("Client")
Updates: TypeAlias = ResponseStream[ChatResponseUpdate, ChatResponse[Any]]


def guard_chat_client(client: Client, guard: Guard, *, query_from: QueryFrom = last_user_turn) -> Client:
    """Guard what this client gives, streamed and whole, and return it. A whole response has been made in
    full when it is judged; streaming lets an abort end it early. Raises `UnguardedClient` for no client."""
    if not isinstance(client, BaseChatClient):
        raise UnguardedClient(f"{type(client).__name__!r} is no chat client of agent-framework's")
    inner: Any = client
    inner._inner_get_response = _Guarded(client._inner_get_response, guard, query_from)
    return client


class _Guarded:
    """The method of a client that asks the model, below its middleware, tools and traces."""

    def __init__(self, ask: Any, guard: Guard, query_from: QueryFrom) -> None:
        self._ask = ask
        self._guard = guard
        self._query_from = query_from

    def __call__(
        self, *, messages: Sequence[Message], stream: bool, options: Mapping[str, Any], **rest: Any
    ) -> Any:
        format_ = options.get("response_format")
        asked = {"query": self._query_from(_chat(messages, options)), "redactable": format_ is None}
        ask = partial(self._ask, messages=messages, stream=stream, options=options, **rest)
        if not stream:
            return self._response(ask, asked)
        whole = partial(ChatResponse.from_updates, output_format_type=format_)
        return ResponseStream(self._updates(ask, asked), finalizer=whole)

    async def _updates(
        self, ask: Callable[[], Updates | Awaitable[Updates]], asked: dict[str, Any]
    ) -> AsyncIterator[ChatResponseUpdate]:
        opened = AsyncExitStack()

        async def updates() -> Updates:
            given = ask()
            updates = given if isinstance(given, ResponseStream) else await given
            opened.push_async_callback(updates.close)
            return updates

        reader, writer = Reader(), Writer()
        source = Reading(updates, reader.update, close=opened.aclose)
        stream = self._guard.stream(source, **asked)
        try:
            async for event in stream:
                if raise_if_told(event):
                    continue
                if isinstance(event, Aborted):
                    notice = [Content.from_text(event.notice)]
                    yield ChatResponseUpdate(
                        contents=notice, role="assistant", finish_reason="content_filter"
                    )
                    return
                if isinstance(part := getattr(event, "origin", None), Part):
                    content = writer.content(event, part)
                    if content is not None or part.ends:
                        yield writer.update(part, content)
            if reader.conversation_id is not None:
                yield ChatResponseUpdate(conversation_id=reader.conversation_id)
        finally:
            await stream.aclose()

    async def _response(
        self, ask: Callable[[], Awaitable[ChatResponse[Any]]], asked: dict[str, Any]
    ) -> ChatResponse[Any]:
        writer, before = Writer(), None
        made: ChatResponse[Any] = ChatResponse()

        async def answer() -> AsyncGenerator[ChatResponse[Any]]:
            yield await ask()

        def read(response: ChatResponse[Any]) -> list[SourceEvent]:
            nonlocal made
            made = copy(response)
            made.messages, made.raw_representation = [copy(message) for message in response.messages], None
            for message in made.messages:
                message.contents, message.raw_representation = [], None
            return Reader().whole(response)

        async with self._guard.stream(Reading(answer(), read), **asked) as stream:
            async for event in stream:
                if raise_if_told(event):
                    continue
                if isinstance(event, Aborted):
                    writer.redacted = True
                    made.messages = [Message("assistant", [event.notice])]
                    made.finish_reason, made.conversation_id = "content_filter", None
                    continue
                part = getattr(event, "origin", None)
                if isinstance(part, Part) and (content := writer.content(event, part)) is not None:
                    contents = made.messages[part.place].contents
                    if part is before and contents[-1].type == content.type:
                        content.text = (contents.pop().text or "") + (content.text or "")
                    contents.append(content)
                    before = part
        if writer.redacted:
            made.additional_properties = {}
            for message in made.messages:
                message.additional_properties = {}
        return made


def _chat(messages: Sequence[Message], options: Mapping[str, Any]) -> list[Turn]:
    """The conversation, by role; what the model thought before has the role "reasoning"."""
    chat = []
    if options.get("conversation_id"):
        chat.append(Turn("system", "", unseen=True))
    if instructions := options.get("instructions"):
        chat.append(Turn("system", str(instructions)))
    for message in messages:
        for content in message.contents:
            if content.type == "text_reasoning":
                chat.append(Turn("reasoning", content.text or ""))
            elif content.type == "function_result":
                chat.append(Turn("tool", str(content.result)))
        if message.text:
            chat.append(Turn(str(message.role), message.text))
    return chat
