"""Recorded streams: what a guard was given, asked and let out, step by step, in JSON lines.

A recording holds the text of the question, the reasoning and the answer. Nothing is recorded unless a
`Recorder` is among a guard's observers; who may read its file is yours to see to.
"""

from shieldguard.recording.reader import Recording, read
from shieldguard.recording.recorder import Recorder

__all__ = ["Recorder", "Recording", "read"]
