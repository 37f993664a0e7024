"""Make hidden characters visible, in texts that come from outside and are shown to a person.

A terminal acts on control characters: they delete what stands there, rename the window, or print a line that looks like
ours. Others reorder their neighbors (bidi controls) or cannot be seen at all (zero width). Each becomes an escape as in
Python, such as `\\x1b`, `\\n` or `\\u202e`. What is stored keeps them: files, JSON and the objects in Python.
"""

import re
from typing import Final

HIDDEN: Final = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f"
)
"""The inside of a character class of a regular expression: characters that act on their neighbors or cannot be seen.
Tab, LF and the joiners U+200C and U+200D are not among them."""

_LETTER = "[^\x00-\u024f\u200c\u200d]"
# Persian, Indic scripts and emoji need the joiners. Between Latin letters they are only a way to hide a difference.
_IDLE_JOINER = f"(?<!{_LETTER})[\u200c\u200d]|[\u200c\u200d](?!{_LETTER})"
_HIDDEN = re.compile(f"[{HIDDEN}]|{_IDLE_JOINER}")
_HIDDEN_OR_LINE_END = re.compile(f"[\t\n{HIDDEN}]|{_IDLE_JOINER}")

_PLAIN_SIGNS: Final = str.maketrans({"–": "-", "—": "-", "−": "-", "…": "...", "’": "'", "‘": "'", "“": '"', "”": '"'})
"""Signs of our own messages, and what stands for them where only ASCII can be shown."""


def escape_hidden(text: str, *, keep_lines: bool = False) -> str:
    """Replace each hidden character by an escape that can be seen.

    Args:
        text: Any text.
        keep_lines: Keep tabs and line ends. Otherwise the result is one line.
    """
    pattern = _HIDDEN if keep_lines else _HIDDEN_OR_LINE_END
    return pattern.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def escape_json(text: str) -> str:
    """Replace each hidden character in the text of a JSON value by JSON's own escape, which reads back to the same."""

    def escaped(found: re.Match[str]) -> str:
        units = found[0].encode("utf-16-be", "surrogatepass").hex()
        return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))

    return _HIDDEN.sub(escaped, text)


def escape_unencodable(text: str, encoding: str) -> str:
    """Replace each character that an encoding lacks by an escape, or by a plain sign where there is one.

    Args:
        text: Any text.
        encoding: Of the terminal or the file that the text is shown in.
    """
    if can_encode(text, encoding):
        return text
    plain = text.translate(_PLAIN_SIGNS)
    return plain.encode(encoding, "backslashreplace").decode(encoding)


def can_encode(text: str, encoding: str) -> bool:
    """Return True if the encoding has every character of the text."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
