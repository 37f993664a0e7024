"""How much a request may ask for, and how much may wait."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Limits:
    """Bounds of a server. Each bounds the memory or the time that one client can take."""

    body_bytes: int = 16_000_000
    """Largest body of a request."""

    texts: int = 1_024
    """Most texts in a request."""

    characters: int = 10_000_000
    """Most characters in a text. Only the ends of a long text are read, so this bounds memory rather than time."""

    queue_tokens: int = 400_000
    """Most tokens that wait. A request that does not fit is refused with 429."""

    timeout: float = 30.0
    """Seconds in which a request must be answered, unless it asks for less."""

    explained_words: int = 100
    """Most words of a text that are left out, one after another, to show which of them mattered."""

    explained_characters: int = 50_000
    """Most characters of a text that is explained: all of it is divided into words."""

    def to_json(self) -> dict[str, Any]:
        """Return the bounds, for clients that divide their work into requests."""
        return asdict(self)
