"""A model server to try `shieldguard serve` with: it recites two traces, one of them harmful."""

import threading

from shieldguard_adapters.demo.scripts import ALL
from shieldguard_adapters.demo.server import recite


def main() -> None:
    with recite(ALL, pace=2000) as server:
        print(server.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
