"""What the API calls its events and the parts of its items."""

# Types of events.
TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})
LIFECYCLE = TERMINAL | {"response.created", "response.queued", "response.in_progress"}
ADDED, DONE = "response.output_item.added", "response.output_item.done"
# The types of parts: the list of an item that they stand in, the stems of their events and of those of their
# text, and the key of their text.
PARTS = {
    "output_text": ("content", "response.content_part", "response.output_text", "text"),
    "refusal": ("content", "response.content_part", "response.refusal", "refusal"),
    "reasoning_text": ("content", "response.content_part", "response.reasoning_text", "text"),
    "summary_text": ("summary", "response.reasoning_summary_part", "response.reasoning_summary_text", "text"),
}
# How events number the parts of a list.
NUMBERS = {"content": "content_index", "summary": "summary_index"}
