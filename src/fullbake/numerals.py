"""Numbers in words: scores, intervals, p-values, times, sizes. What is unknown is a dash."""

from datetime import datetime

from fullbake.storage import amount

UNKNOWN = "–"


def score(value: float | None) -> str:
    """Three digits, or a dash."""
    return UNKNOWN if value is None else f"{value:.3f}"


def span(low: float | None, high: float | None) -> str:
    """An interval in words, or nothing."""
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def duration(seconds: float | None) -> str:
    """Two units at most: 0.8 s, 9 s, 6 min 52 s, 1 h 10 min."""
    if seconds is None:
        return UNKNOWN
    if seconds < 9.95:
        return "under 0.1 s" if seconds < 0.1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def size(count: float | None) -> str:
    """Bytes in words, or a dash."""
    return UNKNOWN if count is None else amount(int(count))


def signed(value: float | None) -> str:
    """A difference: three digits, and its sign unless it rounds to nothing."""
    if value is None:
        return UNKNOWN
    return f"{value:+.3f}".replace("-", "−") if abs(value) >= 0.0005 else "0.000"


def chance(p: float | None) -> str:
    """A p-value; nobody reads one below a thousandth."""
    if p is None:
        return UNKNOWN
    return "under 0.001" if p < 0.001 else f"{p:.3f}"


def count(number: float | None) -> str:
    """With thousands apart, without fractions."""
    return UNKNOWN if number is None else f"{number:,.0f}"


def about(number: int) -> str:
    """Up to two digits and zeros, for estimates that carry no more."""
    unit = 10 ** max(len(str(number)) - 2, 0)
    return f"{-(-number // unit) * unit:,}"


def moment(iso: str) -> str:
    """A date and time in ISO 8601, to the minute."""
    return f"{datetime.fromisoformat(iso):%Y-%m-%d %H:%M %Z}".strip()


def short(learning_rate: float) -> str:
    """The short form people write: 5e-5."""
    return f"{learning_rate:.1e}".replace(".0e", "e").replace("e-0", "e-").replace("e+00", "")
