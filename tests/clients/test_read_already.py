"""A response that a transport gives read already, as a cache does: what was read of it is not what leaves."""

from typing import Any

import anyio
import pytest

from shieldguard_adapters.clients import guard_client, report_of
from tests.clients.rig import PROGRAMS, guard
from tests.upstream import chat, completion

URL = "http://model/v1/chat/completions"


def transport(http: Any, harm: bool, stream: bool) -> Any:
    answer = "A HARM." if harm else "All is well."
    data = b"".join(chat([], [answer])) if stream else completion({"content": answer})
    kind = "text/event-stream" if stream else "application/json"

    def respond(request: Any) -> Any:
        response = http.Response(200, content=data, headers={"content-type": kind})
        assert response.text
        return response

    return http.MockTransport(respond)


@pytest.mark.parametrize("harm", [True, False])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("library", ["httpx", "httpx2"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_what_was_read_of_a_response_does_not_leave(
    program: str, library: str, stream: bool, harm: bool
) -> None:
    http = pytest.importorskip(library)
    request = {"messages": [], "stream": stream}

    async def main() -> Any:
        async with http.AsyncClient(transport=transport(http, harm, stream)) as client:
            return await guard_client(client, guard()).post(URL, json=request)

    if program == "sync":
        with http.Client(transport=transport(http, harm, stream)) as client:
            response = guard_client(client, guard()).post(URL, json=request)
    else:
        response = anyio.run(main, backend=program)
    assert ("HARM" in response.text, "All is well." in response.text) == (False, not harm)
    assert (report_of(response).aborted is not None) is harm
