"""Where tokens come from: `embedded`, `ollama`, `openai`, `echo`, in a chain with fallbacks."""

from novacore.intelligence.providers.base import (
    FailureKind,
    Generation,
    Message,
    Piece,
    Progress,
    Provider,
    ProviderError,
    Usage,
)
from novacore.intelligence.providers.chain import Chain, build_chain

__all__ = [
    "Chain",
    "FailureKind",
    "Generation",
    "Message",
    "Piece",
    "Progress",
    "Provider",
    "ProviderError",
    "Usage",
    "build_chain",
]
