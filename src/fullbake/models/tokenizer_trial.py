"""Try a tokenizer.json, as a script in a process of its own that may be killed.

The tokenizers library trusts its file: a wrong one can panic, search a text for minutes, or ask for gigabytes. So the
file is first read here, with limits on processor time and memory, and some texts are encoded that would show it. Only
the standard library and tokenizers are imported, so that the process starts in a tenth of a second. `tokenizer_safety`
starts it.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

_MOST_ENTRIES: Final = 20_000
"""Most values in a tokenizer.json beside its vocabulary, merges and added tokens. Real ones have under 500."""

_LONGEST_TEXT: Final = 20_000
"""Longest text in these parts, but for the table of characters that SentencePiece models have."""

_LONGEST_WORD: Final = 1_000
"""Most characters of a word that WordPiece may search for pieces, in time that grows with their cube. It is 100."""

_LARGEST_PADDING: Final = 10_000_000
"""Longest row that a file may pad to."""

_MOST_TOKENS_PER_BYTE: Final = 50
"""Tokens that a byte of text may become. One Arabic letter becomes 18 when it is normalized."""

_PLAIN_TEXTS: Final = (
    "The quick brown fox jumps over the lazy dog, 1,234.56 times a day: don't you think so?",
    "ÉCOLE café ＦＵＬＬ ﬁ ½ 😀 中文分词 العربيّة ﷺ हिन्दी ไทย Привет 𐎀𐎁",
    "  spaces \t tab\nline end \r\n and\u00a0hard\u3000wide \u200b\u2028\x07 ",
    " ",
    "",
)

_REPEATED: Final = ("a", "A", "1", " ", "\n", ".", "'", "é", "中", "ab ", "a1", "_-")
_REPETITIONS: Final = 300


def limit_process(seconds: int, memory: int) -> None:
    """Limit this process to so many seconds of processor time and bytes of memory, where the system can do that."""
    try:
        import resource
    except ImportError:  # Windows has no such limits; the parent's clock is left
        return
    for kind, limit in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0)):
        with suppress(ValueError, OSError):  # macOS refuses some
            resource.setrlimit(kind, (limit, limit))


def try_tokenizer(path: str) -> dict[str, Any]:
    """Read a tokenizer.json and encode texts with it.

    Args:
        path: the file.

    Returns:
        {"highest_id": the largest id that it can give, "tokens": the size of its vocabulary}, or {"fault": why it
        cannot be used}.
    """
    with open(path, "rb") as file:
        content = json.load(file)
    fault = find_static_fault(content)
    if fault is not None:
        return {"fault": fault}
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(path)
    _encode(tokenizer, "a")  # with the padding and truncation of the file, which are switched off at once
    tokenizer.no_padding()
    tokenizer.no_truncation()
    for text in [*_PLAIN_TEXTS, *_long_texts(content)]:
        ids = _encode(tokenizer, text)
        if len(ids) > _MOST_TOKENS_PER_BYTE * len(text.encode()) + 1_000:
            return {"fault": f"it makes {len(ids):,} tokens of a text of {len(text.encode()):,} bytes"}
        if ids != _encode(tokenizer, text):
            return {"fault": "it gives other tokens each time it reads the same text"}
    return measure_tokenizer(tokenizer)


def measure_tokenizer(tokenizer: Any) -> dict[str, int]:
    """Return the largest id that a tokenizer can give ("highest_id"), and the size of its vocabulary ("tokens").

    Args:
        tokenizer: A `tokenizers.Tokenizer`.
    """
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    for texts in (("a",), ("a", "b"), *((text,) for text in _PLAIN_TEXTS)):
        # A post-processor may set ids of its own, which no vocabulary has.
        highest = max(highest, *_encode(tokenizer, *texts), -1)
    return {"highest_id": highest, "tokens": tokenizer.get_vocab_size(with_added_tokens=True)}


def _encode(tokenizer: Any, *texts: str) -> list[int]:
    """Return the ids of a text or a pair; none if the unknown token is missing, which `load_tokenizer` explains."""
    try:
        return list(tokenizer.encode(*texts).ids)
    except Exception as error:
        if "unk" not in str(error).lower():
            raise
        return []


def find_static_fault(content: Any) -> str | None:
    """Return what is wrong with the content of a tokenizer.json before the library reads it, None if nothing is."""
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        return "it holds no object 'model'"
    model = content["model"]
    longest = model.get("max_input_chars_per_word", 0)
    if isinstance(longest, int) and longest > _LONGEST_WORD:
        return f"model.max_input_chars_per_word is {longest}, at most {_LONGEST_WORD:,} is read"
    if model.get("dropout"):
        return "model.dropout is not null, so its tokens would depend on chance; set it to null"
    return _find_padding_fault(content.get("padding")) or _find_size_fault(content)


def _find_padding_fault(padding: Any) -> str | None:
    if not isinstance(padding, dict):
        return None
    strategy = padding.get("strategy")
    fixed = strategy.get("Fixed") if isinstance(strategy, dict) else None
    for length in (fixed, padding.get("pad_to_multiple_of")):
        if isinstance(length, int) and length > _LARGEST_PADDING:
            return f"it pads texts to {length} tokens, at most {_LARGEST_PADDING:,} is read"
    return None


def _find_size_fault(content: dict[str, Any]) -> str | None:
    """Return what is too large in the parts beside the vocabulary, None if nothing is."""
    rest = {name: value for name, value in content.items() if name != "added_tokens"}
    rest["model"] = {name: value for name, value in content["model"].items() if name not in ("vocab", "merges")}
    for entries, (keys, value) in enumerate(_walk(rest), 1):
        if entries > _MOST_ENTRIES:
            return f"it has more than {_MOST_ENTRIES:,} entries beside its vocabulary"
        if isinstance(value, str) and len(value) > _LONGEST_TEXT and keys[-1] != "precompiled_charsmap":
            return f"{'.'.join(keys)} is a text of {len(value):,} characters, at most {_LONGEST_TEXT:,} is read"
    return None


def _walk(content: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every value within some JSON with the keys that lead to it."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), content)]
    while waiting:
        keys, value = waiting.pop()
        yield keys, value
        if isinstance(value, dict):
            waiting.extend(((*keys, str(name)), inner) for name, inner in value.items())
        elif isinstance(value, list):
            waiting.extend(((*keys, "0"), inner) for inner in value)


def _long_texts(content: dict[str, Any]) -> list[str]:
    """Return long texts: of usual characters, and of those that the file's own patterns name.

    A pattern that needs time exponential in the length of a text needs it on repetitions of its own letters.
    """
    pieces = dict.fromkeys(_REPEATED)
    for name in ("normalizer", "pre_tokenizer"):
        for keys, value in _walk(content.get(name)):
            if isinstance(value, str) and keys[-1:] and keys[-1] in ("Regex", "String"):
                pieces |= dict.fromkeys([*re.findall(r"\w+", value)[:16], *[c for c in value if c.isalnum()][:32]])
    return [text for piece in list(pieces)[:100] for text in (f"{(piece * _REPETITIONS)[:_REPETITIONS]}!",)]


def print_outcome() -> None:
    """Print the outcome for the file that the command line names, as JSON: path, seconds, bytes, folder of packages."""
    path, seconds, memory, packages = sys.argv[1:]
    sys.path.append(packages)
    limit_process(int(seconds), int(memory))
    try:
        outcome = try_tokenizer(path)
    except BaseException as error:  # a panic of Rust is a BaseException
        outcome = {"fault": " ".join(str(error).split())[:500] or type(error).__name__}
    print(json.dumps(outcome), flush=True)
    os._exit(0)  # a thread of the library may still be at work


if __name__ == "__main__":
    print_outcome()
