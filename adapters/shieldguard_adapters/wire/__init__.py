"""Wire codecs: a provider's bytes to events, and released events back to bytes. They do no I/O."""

from shieldguard_adapters.wire.codec import Codec, Request, Termination

__all__ = ["Codec", "Request", "Termination"]
