"""Every error that shieldguard raises on purpose.

ShieldguardError
├── ConfigError (ValueError)      a setting that cannot work
├── MissingDependency (ImportError)  an optional package is not installed
├── JudgeError                    a judge gave no verdict; never a pass
│   ├── JudgeTimeout              no verdict before the deadline
│   ├── JudgeBusy                 too many windows wait already
│   ├── JudgeUnreachable          none of a judge's servers answered
│   ├── JudgeRefused              a judge's server refused what it was asked
│   └── UnparsedVerdict           a reply that is not a verdict
├── SourceError                   the guarded source gave something that cannot be guarded
│   ├── WireError                 bytes that do not follow the provider's format
│   └── BoundExceeded             text that cannot be cut and is larger than the bound
├── UnguardedClient               a client that cannot be, or is not, guarded
└── RiskDetected                  raised by `raise_for_risk()` alone
"""


class ShieldguardError(Exception):
    """The root of the tree."""


class ConfigError(ShieldguardError, ValueError):
    """A setting that cannot work; the message names it, its value and what to do."""


class MissingDependency(ShieldguardError, ImportError):
    """An optional package is not installed; the message names the extra to install."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package!r} is not installed; run: pip install 'shieldguard[{extra}]'")


class JudgeError(ShieldguardError):
    """A judge gave no verdict. The policy decides what follows; the default is to abort."""


class JudgeTimeout(JudgeError):
    """A judge gave no verdict before its deadline."""


class JudgeBusy(JudgeError):
    """A judge takes no more windows for now: too many wait already."""


class JudgeUnreachable(JudgeError):
    """None of a judge's servers answered; the message names what each of them did."""


class JudgeRefused(JudgeError):
    """A judge's server refused what it was asked, or cannot do it; the message says what to change."""


class UnparsedVerdict(JudgeError):
    """A judge's reply could not be read as a verdict. It is never taken for "safe"."""


class SourceError(ShieldguardError):
    """The guarded source gave something that cannot be guarded."""


class WireError(SourceError):
    """Bytes that do not follow the format the codec was made for."""


class BoundExceeded(SourceError):
    """Text that may not be cut (a tool call, a frame) is larger than its bound."""


class UnguardedClient(ShieldguardError):
    """A client that cannot be guarded, or that was asserted to be guarded and is not."""


class RiskDetected(ShieldguardError):
    """The stream was aborted by its policy; raised only where a caller asks for an exception."""
