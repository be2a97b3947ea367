"""Judges: one module or folder each."""

from shieldguard.judges.protocol import InstantJudge, Judge

__all__ = ["InstantJudge", "Judge"]
