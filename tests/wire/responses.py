"""Frames of OpenAI responses."""

import json
from typing import Any

START: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "in_progress",
    "model": "m",
    "error": None,
    "incomplete_details": None,
    "instructions": "Be kind.",
    "output": [],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "text": {"format": {"type": "text"}},
    "usage": None,
}
USAGE = {
    "input_tokens": 5,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 9,
    "output_tokens_details": {"reasoning_tokens": 4},
    "total_tokens": 14,
}


def event(type_: str, **body: Any) -> bytes:
    data = json.dumps({"type": type_, **body}, ensure_ascii=False)
    return f"event: {type_}\ndata: {data}\n\n".encode()


class Item:
    """One item: its frames, and as it is in the end."""

    def __init__(self, final: dict[str, Any], begun: dict[str, Any], *frames: dict[str, Any]) -> None:
        self.final = final
        self.bodies = [
            {"type": "response.output_item.added", "item": begun},
            *frames,
            {"type": "response.output_item.done", "item": final},
        ]


def _parts(stem: str, part_stem: str, where: str, number: int, part: dict[str, Any], *texts: str) -> Any:
    key = "refusal" if part["type"] == "refusal" else "text"
    more: dict[str, Any] = {"logprobs": []} if part["type"] == "output_text" else {}
    full = {**part, key: "".join(texts)}
    frames = [
        {"type": f"{part_stem}.added", where: number, "part": {**part, key: ""}},
        *({"type": f"{stem}.delta", where: number, "delta": text, **more} for text in texts),
        {"type": f"{stem}.done", where: number, key: "".join(texts), **more},
        {"type": f"{part_stem}.done", where: number, "part": full},
    ]
    return full, frames


def thinking(*texts: str, id_: str = "rs_1", **more: Any) -> Item:
    """A raw chain of thought."""
    part, frames = _parts(
        "response.reasoning_text",
        "response.content_part",
        "content_index",
        0,
        {"type": "reasoning_text"},
        *texts,
    )
    item = {"type": "reasoning", "id": id_, "summary": [], **more}
    return Item({**item, "content": [part]}, {**item, "content": []}, *frames)


def summary(*parts: list[str], id_: str = "rs_1", **more: Any) -> Item:
    """Summaries of a thought, each in its pieces."""
    made = [
        _parts(
            "response.reasoning_summary_text",
            "response.reasoning_summary_part",
            "summary_index",
            number,
            {"type": "summary_text"},
            *texts,
        )
        for number, texts in enumerate(parts)
    ]
    item = {"type": "reasoning", "id": id_, "summary": [], **more}
    return Item(
        {**item, "summary": [part for part, _ in made]},
        item,
        *(frame for _, frames in made for frame in frames),
    )


def message(*texts: str, id_: str = "msg_1", refusal: bool = False) -> Item:
    empty = {"type": "refusal"} if refusal else {"type": "output_text", "annotations": [], "logprobs": []}
    stem = "response.refusal" if refusal else "response.output_text"
    part, frames = _parts(stem, "response.content_part", "content_index", 0, empty, *texts)
    item = {"type": "message", "id": id_, "role": "assistant", "status": "in_progress", "content": []}
    return Item({**item, "status": "completed", "content": [part]}, item, *frames)


def call(*pieces: str, id_: str = "fc_1", name: str = "send") -> Item:
    item = {"type": "function_call", "id": id_, "call_id": f"call_{id_}", "name": name, "arguments": ""}
    stem = "response.function_call_arguments"
    return Item(
        {**item, "arguments": "".join(pieces), "status": "completed"},
        {**item, "status": "in_progress"},
        *({"type": f"{stem}.delta", "delta": piece} for piece in pieces),
        {"type": f"{stem}.done", "arguments": "".join(pieces)},
    )


def frames_of(*items: Item, status: str = "completed", **more: Any) -> list[bytes]:
    """The frames of a whole streamed response."""
    bodies: list[dict[str, Any]] = [
        {"type": "response.created", "response": START},
        {"type": "response.in_progress", "response": START},
    ]
    for index, item in enumerate(items):
        for one in item.bodies:
            own = {"output_index": index, **({} if "item" in one else {"item_id": item.final["id"]})}
            bodies.append({**one, **own})
    bodies.append({"type": f"response.{status}", "response": whole(*items, status=status, **more)})
    return [event(type_=b.pop("type"), sequence_number=n, **b) for n, b in enumerate(map(dict, bodies))]


def whole(*items: Item, status: str = "completed", **more: Any) -> dict[str, Any]:
    return {**START, "status": status, "output": [item.final for item in items], "usage": USAGE, **more}


def body(*items: Item, **more: Any) -> bytes:
    """A response in one piece."""
    return json.dumps(whole(*items, **more)).encode()


def bodies_in(out: bytes) -> list[dict[str, Any]]:
    """The JSON of the frames, each named by its type; comments are left out."""
    found = []
    for raw in out.split(b"\n\n")[:-1]:
        if raw.startswith(b":") or raw == b"data: [DONE]":
            continue
        name, data = raw.decode().split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def said(out: bytes) -> list[tuple[str, str]]:
    """The items as a client has them: type and text, which must be the same wherever it is said; numbered
    one after the other, each ended, in events with growing numbers, where they have any."""
    items: list[dict[str, Any]] = []
    texts: list[str] = []
    done: list[dict[str, Any] | None] = []
    last = -1
    bodies = bodies_in(out)
    for one in bodies:
        if "sequence_number" in one:
            assert one["sequence_number"] > last
            last = one["sequence_number"]
        type_ = one["type"]
        if type_ == "response.output_item.added":
            assert one["output_index"] == len(items)
            items.append(one["item"])
            texts.append("")
            done.append(None)
        elif "output_index" in one:
            index = one["output_index"]
            assert done[index] is None
            if type_ == "response.output_item.done":
                done[index] = one["item"]
                assert one["item"]["id"] == items[index]["id"]
                assert text_of(one["item"]) == texts[index]
            elif type_.endswith(".delta"):
                texts[index] += one["delta"]
            else:
                full = one.get("text") or one.get("arguments") or one.get("refusal") or ""
                full += one.get("part", {}).get("text", "") or one.get("part", {}).get("refusal", "")
                assert full in texts[index]
    assert bodies[0]["type"] == "response.created"
    assert bodies[-1]["type"] in ("response.completed", "response.incomplete")
    assert {b["response"]["id"] for b in bodies if "response" in b} == {bodies[0]["response"]["id"]}
    assert bodies[-1]["response"]["output"] == done
    return [(item["type"], text) for item, text in zip(items, texts, strict=True)]


def text_of(item: dict[str, Any]) -> str:
    parts = [*(item.get("summary") or []), *(item.get("content") or [])]
    texts = [str(part.get(key, "")) for part in parts for key in ("text", "refusal")]
    return "".join(texts) + str(item.get("arguments", ""))
