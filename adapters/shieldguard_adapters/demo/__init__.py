"""The demonstration: a local model server, the real OpenAI client, and the guard between them."""
