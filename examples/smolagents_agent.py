"""Guard an agent of smolagents, by the client that its model asks. The model server here is a local one that
recites two traces; give `base_url` and `model` of your own instead."""

import openai
from smolagents import LogLevel, OpenAIModel, ToolCallingAgent

from shieldguard import Guard
from shieldguard_adapters.clients import guard_client
from shieldguard_adapters.demo.scripts import ALL
from shieldguard_adapters.demo.server import recite


def main() -> None:
    with recite(ALL, pace=0) as server:
        client = guard_client(openai.OpenAI(base_url=server.url, api_key="none needed"), Guard())
        for trace in ALL:
            model = OpenAIModel(trace.name, api_key="none needed")
            model.client = client
            agent = ToolCallingAgent(
                [], model, stream_outputs=True, max_steps=1, verbosity_level=LogLevel.OFF
            )
            print(f"Q: {trace.query}\nA:")
            agent.run(trace.query)  # which shows the answer
            print()


if __name__ == "__main__":
    main()
