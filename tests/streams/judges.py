"""For `--judge tests.streams.judges:words`."""

from tests.streams.traces import WordJudge


def words(harmful: float = 0.8) -> WordJudge:
    return WordJudge(harmful)
