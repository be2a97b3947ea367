"""Streaming guardrails for the reasoning of large language models."""

from shieldguard.conversation import Message, QueryFrom, history, last_user_turn
from shieldguard.driving import SourceItem
from shieldguard.errors import (
    BoundExceeded,
    ConfigError,
    JudgeBusy,
    JudgeError,
    JudgeRefused,
    JudgeTimeout,
    JudgeUnreachable,
    MissingDependency,
    RiskDetected,
    ShieldguardError,
    SourceError,
    UnguardedClient,
    UnparsedVerdict,
    WireError,
)
from shieldguard.events import (
    AbortCause,
    Aborted,
    Answer,
    Channel,
    End,
    Opaque,
    OpaqueKind,
    Passthrough,
    Reasoning,
    Redacted,
    Relabel,
    ReleasedEvent,
    SourceEvent,
    ToolCall,
)
from shieldguard.guard import Guard
from shieldguard.judges.cascade import Cascade
from shieldguard.judges.protocol import InstantJudge, Judge
from shieldguard.observers import CutBy, Ended, Observer, StreamReport, Tally, WindowJudged
from shieldguard.policy import Action, OpaqueReasoning, Policy, Release, Rule
from shieldguard.session import GuardSession
from shieldguard.stream import GuardedStream
from shieldguard.stream_sync import SyncGuardedStream
from shieldguard.thinking import Marker, Thinking, ThinkSplitter, tag_pair
from shieldguard.verdicts import RiskCategory, RiskLevel, Verdict
from shieldguard.windows import SentenceWindower, SizeWindower, Window, Windower

__version__ = "0.1.0"

__all__ = [
    "AbortCause",
    "Aborted",
    "Action",
    "Answer",
    "BoundExceeded",
    "Cascade",
    "Channel",
    "ConfigError",
    "CutBy",
    "End",
    "Ended",
    "Guard",
    "GuardSession",
    "GuardedStream",
    "InstantJudge",
    "Judge",
    "JudgeBusy",
    "JudgeError",
    "JudgeRefused",
    "JudgeTimeout",
    "JudgeUnreachable",
    "Marker",
    "Message",
    "MissingDependency",
    "Observer",
    "Opaque",
    "OpaqueKind",
    "OpaqueReasoning",
    "Passthrough",
    "Policy",
    "QueryFrom",
    "Reasoning",
    "Redacted",
    "Relabel",
    "Release",
    "ReleasedEvent",
    "RiskCategory",
    "RiskDetected",
    "RiskLevel",
    "Rule",
    "SentenceWindower",
    "ShieldguardError",
    "SizeWindower",
    "SourceError",
    "SourceEvent",
    "SourceItem",
    "StreamReport",
    "SyncGuardedStream",
    "Tally",
    "ThinkSplitter",
    "Thinking",
    "ToolCall",
    "UnguardedClient",
    "UnparsedVerdict",
    "Verdict",
    "Window",
    "WindowJudged",
    "Windower",
    "WireError",
    "__version__",
    "history",
    "last_user_turn",
    "tag_pair",
]
