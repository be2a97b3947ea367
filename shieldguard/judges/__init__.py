"""Judges: one module or folder each."""

from shieldguard.judges.cascade import Cascade
from shieldguard.judges.protocol import InstantJudge, Judge

__all__ = ["Cascade", "InstantJudge", "Judge"]
