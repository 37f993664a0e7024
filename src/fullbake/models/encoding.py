"""Texts to token ids, and token ids to batches.

The base's own fast tokenizer runs over all texts in bulk, before any computing starts. The result is one flat array of
ids with the offsets of its rows, 4 bytes per token. The trade-off: all ids of a part are in memory (160,000 comments
take 60 MB); in exchange all lengths are known beforehand, and the batch plan needs them.

Truncation is done here, on whole rows of ids, never by the tokenizer, so the settings that transformers leaves in a
tokenizer (the file of `demo` pads and cuts everything to 128) cannot change results. Its rules are those of the Rust
tokenizers, so a saved bundle reads texts alike in plain transformers; `head+tail` follows Sun et al. 2019 (arXiv
1905.05583). A text that is cut into windows is several rows; `Encoded.documents` says of which text each row is.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from fullbake.config.fields import Padding, Truncation
from fullbake.core.console import say, warn
from fullbake.core.errors import DataError, RecipeError
from fullbake.models.long_texts import LONG_TEXT_CHARACTERS, EndsOfText
from fullbake.models.prompts import prompt_ids, without_prompt
from fullbake.models.tokenizer import (
    count_special_tokens,
    disable_padding_and_truncation,
    warn_of_unknown_tokens,
)
from fullbake.models.tokenizer_safety import explain_failure

if TYPE_CHECKING:  # these take seconds to import, and a text given on the command line needs neither
    import pyarrow as pa
    from transformers import PreTrainedTokenizerFast


Ids = npt.NDArray[np.int64]

FlatIds = tuple[npt.NDArray[np.int32], Ids]
"""The ids of many texts one after another, (tokens,), and the number of each text's ids, (texts,)."""

HEAD_SHARE: Final = 128 / 510
"""Of the 510 tokens that a length of 512 leaves for text, `head+tail` keeps the first 128 and the last 382 (Sun et al.
2019). Other lengths keep the ratio."""

# How much goes through the tokenizer at once: its encodings are large until their ids are copied out.
_CHUNK_ROWS = 256
_CHUNK_CHARACTERS = 1 << 20

_UNKNOWN_SAMPLE = 2_000
"""Tokens at the start of a long text in which unknown ones are counted."""


# Truncation: arithmetic on lengths, for many texts at once, without special tokens


def tokens_kept_at_ends(room: int, truncation: str) -> tuple[int, int]:
    """Return how many tokens of a too long text stay at its start and at its end.

    Args:
        room: Tokens that stay in all.
        truncation: `head`, `tail` or `head+tail`.
    """
    head = {"head": room, "tail": 0, "head+tail": round(room * HEAD_SHARE)}[truncation]
    return head, room - head


def row_offsets(lengths: Ids) -> Ids:
    """Return where each row starts in a flat array, and where the last one ends: (rows,) -> (rows + 1,)."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def ends_mask(lengths: Ids, first: int | Ids, last: int) -> npt.NDArray[np.bool_]:
    """Return a mask of the first and last tokens of each row; all tokens of a row no longer than first + last.

    Args:
        lengths: Tokens of each row, (rows,).
        first: How many tokens at the start: one number for all rows, or (rows,).
        last: How many tokens at the end of every row.

    Returns:
        bool (tokens of all rows,), row after row.
    """
    starts = row_offsets(lengths)
    place = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
    kept = np.repeat(np.broadcast_to(first, lengths.shape), lengths)
    return (place < kept) | (place >= np.repeat(lengths, lengths) - last)


def window_bounds(lengths: Ids, room: int, stride: int) -> tuple[Ids, Ids, Ids]:
    """Cut texts into windows of `room` tokens; the last window of a text takes what is left.

    A text that fits, also an empty one, is one window.

    Args:
        lengths: Tokens of each text, (texts,).
        room: Tokens of a window.
        stride: Tokens that neighboring windows share, as transformers counts it.

    Returns:
        For every window the text that it is of, its first token, and the token after its last, each (windows,).

    Raises:
        RecipeError: The stride is not smaller than the room.
    """
    if not 0 <= stride < room:
        raise RecipeError(
            f"windows that share {stride} tokens never reach the end of a text",
            where="--stride",
            expected=f"less than the {room} tokens that a window holds of the text",
            got=str(stride),
            remedy="Lower --stride or raise --max-length.",
        )
    step = room - stride
    counts = 1 + -(-np.maximum(lengths - room, 0) // step)
    documents = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(len(documents)) - np.repeat(row_offsets(counts)[:-1], counts)
    starts = number * step
    return documents, starts, np.minimum(starts + room, lengths[documents])


def truncate_longest_first(first: Ids, second: Ids, room: int) -> tuple[Ids, Ids]:
    """Return the lengths of pairs of texts that fit into `room` together, as `longest_first` of transformers.

    The longer text loses tokens until both have the same length; then both lose.

    Args:
        first: Tokens of the first texts, (pairs,).
        second: Tokens of the second texts, (pairs,).
        room: Tokens that stay in all. Of an odd room the longer text keeps one more; of texts of equal length the
            second.

    Returns:
        Tokens that stay of the first and of the second texts, each (pairs,).
    """
    shorter = np.minimum(first, second)
    longer = np.maximum(shorter, np.minimum(np.maximum(first, second), room - shorter))
    halved = shorter + longer > room
    shorter = np.where(halved, room // 2, shorter)
    longer = np.where(halved, room // 2 + room % 2, longer)
    swapped = first > second
    return np.where(swapped, longer, shorter), np.where(swapped, shorter, longer)


# Encoded texts


@dataclass(frozen=True, eq=False)
class Encoded:
    """Token ids of many texts, special tokens included."""

    input_ids: npt.NDArray[np.int32]
    """All rows one after another, (tokens,)."""

    offsets: Ids
    """Where each row starts, and where the last one ends, (rows + 1,)."""

    token_type_ids: npt.NDArray[np.uint8] | None = None
    """Segment of each token, (tokens,); None for a base without segments."""

    documents: Ids | None = None
    """Which text each row is a window of, (rows,), ascending; None if every row is a text."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Ids:
        """Tokens of each row, (rows,)."""
        return np.diff(self.offsets)

    def take(self, rows: Ids) -> "Encoded":
        """Return these rows in this order; a window keeps the number of its text."""
        places, lengths = self.places(rows)
        types = None if self.token_type_ids is None else self.token_type_ids[places]
        documents = None if self.documents is None else self.documents[rows]
        return Encoded(self.input_ids[places], row_offsets(lengths), types, documents)

    def of_documents(self, texts: Ids) -> "Encoded":
        """Return these texts in this order, with all their windows; the texts are numbered from 0 again."""
        if self.documents is None:
            return self.take(texts)
        rows, documents = window_rows(self.documents, texts)
        return replace(self.take(rows), documents=documents)

    def places(self, rows: Ids) -> tuple[Ids, Ids]:
        """Return the positions of these rows' tokens in the flat arrays, row after row, and the rows' lengths."""
        starts, lengths = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        return span_positions(starts, lengths), lengths


def window_rows(documents: Ids, texts: Ids) -> tuple[Ids, Ids]:
    """Find the rows that are windows of some texts.

    Args:
        documents: Which text each row is a window of, (rows,), ascending.
        texts: The texts wanted, (n,).

    Returns:
        The rows, text after text, and for each of them its text's place in `texts`.
    """
    starts = np.searchsorted(documents, texts)
    counts = np.searchsorted(documents, texts, side="right") - starts
    return span_positions(starts, counts), np.repeat(np.arange(len(texts)), counts)


def span_positions(starts: Ids, lengths: Ids) -> Ids:
    """Return every position of spans with these starts and lengths, span after span."""
    first = np.repeat(starts - row_offsets(lengths)[:-1], lengths)
    return first + np.arange(len(first))


# From texts to ids


def tokenize(
    tokenizer: "PreTrainedTokenizerFast",
    texts: "pa.ChunkedArray | Iterable[str]",
    *,
    max_length: int,
    truncation: Truncation,
    stride: int = 0,
    text_pair: "pa.ChunkedArray | Iterable[str] | None" = None,
    prompt: str | None = None,
    on_progress: Callable[[int], object] | None = None,
    long_text: int = LONG_TEXT_CHARACTERS,
) -> Encoded:
    """Turn texts into rows of token ids, each at most `max_length` long, with all special tokens.

    Beyond the result this needs the memory of 256 texts or a million characters. Only windows, and pairs of two long
    texts, read a longer text whole.

    Args:
        tokenizer: As `tokenizer.load_tokenizer` gives it. Rows have token_type_ids if its model_input_names do.
        texts: One text per row.
        max_length: Longest row in tokens.
        truncation: What stays of a longer text. `head` and `tail` give the ids that the tokenizer gives with that
            `truncation_side`; `head+tail` keeps the first 128/510 and the last 382/510 of what fits; `windows` gives a
            row for each window, as the tokenizer does with return_overflowing_tokens.
        stride: Tokens that neighboring windows share.
        text_pair: The second text of each row. A pair that is too long is cut at the end of its longer text.
        prompt: Text before every text, or before the first text of every pair. It stays whatever is cut, in each window
            too.
        on_progress: Called with the number of texts done since the last call.
        long_text: Characters from which on only the ends of a text are read.

    Raises:
        RecipeError: max_length leaves no room for text, or the stride is too large.
        DataError: A value is not a text.
    """
    disable_padding_and_truncation(tokenizer)
    prefix = prompt_ids(tokenizer, prompt)
    template = read_special_token_template(tokenizer, max_length, pair=text_pair is not None).with_prompt(prefix)
    columns = [texts] if text_pair is None else [texts, text_pair]
    rows: list[Encoded] = []
    texts_before = 0
    ends = _ends_to_read(template, truncation, len(prefix), pair=text_pair is not None)
    reader = _Reader(tokenizer, ends, long_text)
    for chunk in _text_chunks(columns):
        with explain_failure(getattr(tokenizer, "name_or_path", "")):
            texts = reader.read([[prompt + text for text in chunk[0]], *chunk[1:]] if prompt else chunk)
        texts[0] = without_prompt(*texts[0], len(prefix)) if prefix else texts[0]
        rows.append(assemble_rows(template, texts, truncation, stride, texts_before))
        texts_before += len(chunk[0])
        if on_progress:
            on_progress(len(chunk[0]))
    return concatenate_rows(rows, "token_type_ids" in tokenizer.model_input_names, truncation)


@dataclass(frozen=True, eq=False)
class TokenCounts:
    """How many tokens some texts have."""

    lengths: Ids
    """(texts,) tokens of each whole text, special ones included."""

    unknown_share: float
    """Share of unknown tokens among all tokens without special ones, from 0 to 1."""

    @property
    def unknown_warning(self) -> str | None:
        """Return what to do about the unknown tokens, None if they are few."""
        return warn_of_unknown_tokens(self.unknown_share)


def report_unknown_tokens(tokenizer: "PreTrainedTokenizerFast", texts: Iterable[str]) -> None:
    """Say which share of the texts' tokens is unknown to the tokenizer, and warn if it is large."""
    counts = count_tokens(tokenizer, texts)
    say(f"unknown tokens: {counts.unknown_share:.2%}")
    if counts.unknown_warning is not None:
        warn(counts.unknown_warning)


def count_tokens(tokenizer: "PreTrainedTokenizerFast", texts: Iterable[str], prompt: str | None = None) -> TokenCounts:
    """Count the tokens of each whole text, and the unknown ones among them.

    Args:
        tokenizer: As `tokenizer.load_tokenizer` gives it.
        texts: The texts.
        prompt: Text that will stand before every text.

    Returns:
        The counts. That of a text with a word of over 65,536 characters may be off by a few tokens. The unknown tokens
        of a text of so many characters are estimated from its start.
    """
    disable_padding_and_truncation(tokenizer)
    around = sum(count_special_tokens(tokenizer)) + len(prompt_ids(tokenizer, prompt))
    ends = EndsOfText(tokenizer.backend_tokenizer)
    unknown_id: Any = tokenizer.unk_token_id
    counts, unknown = [np.empty(0, np.int64)], 0.0
    for (chunk,) in _text_chunks([texts]):
        is_long = [len(text) >= LONG_TEXT_CHARACTERS for text in chunk]
        short = iter(_encode(tokenizer, [text for text, long in zip(chunk, is_long, strict=True) if not long]))
        found: list[int] = []
        for text, long in zip(chunk, is_long, strict=True):
            ids = ends.first(text, _UNKNOWN_SAMPLE) if long else next(short)
            found.append(ends.count(text) if long else len(ids))
            unknown += found[-1] * ids.count(unknown_id) / max(1, len(ids))
        counts.append(np.array(found, np.int64))
    lengths = np.concatenate(counts)
    return TokenCounts(lengths + around, unknown / max(1, int(lengths.sum())))


def _text_chunks(columns: "list[pa.ChunkedArray | Iterable[str]]") -> Iterator[list[list[str]]]:
    """Yield the texts of one or two columns in order, in lists small enough to tokenize at once, one per column."""
    chunk: list[tuple[str, ...]] = []
    characters = 0
    values = [map(_python_value, column) if hasattr(column, "combine_chunks") else column for column in columns]
    for number, row in enumerate(zip(*values, strict=True), 1):
        for text in row:
            check_text(text, number)
            characters += len(text)
        chunk.append(row)
        if len(chunk) == _CHUNK_ROWS or characters >= _CHUNK_CHARACTERS:
            yield [list(column) for column in zip(*chunk, strict=True)]
            chunk, characters = [], 0
    if chunk:
        yield [list(column) for column in zip(*chunk, strict=True)]


def _python_value(scalar: Any) -> Any:
    return scalar.as_py()


def check_text(text: Any, number: int) -> None:
    """Raise DataError for a null or what is not Unicode. number: the text's place, from 1."""
    if not isinstance(text, str):
        raise DataError("not a text", where=f"text {number}", expected="a string", got=repr(text)[:80])
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"character {error.start + 1} is half of a surrogate pair",
            where=f"text {number}",
            expected="Unicode text",
            got=repr(text[error.start]),
            remedy="The text was decoded wrongly: read its source again with the right encoding.",
        ) from error


@dataclass(frozen=True)
class _Reader:
    """Turns texts into ids, without truncation and special tokens. Of a long text it reads only what truncation keeps.

    ends: how many ids truncation keeps at most at the start and at the end of a text; None keeps all.
    """

    tokenizer: "PreTrainedTokenizerFast"
    ends: tuple[int, int] | None
    long_text: int

    def read(self, columns: list[list[str]]) -> list[FlatIds]:
        """Return the ids of one or two columns of texts.

        A pair of two long texts is read whole: which one is cut depends on which one is longer.
        """
        bounded = [self.ends is not None and sum(map(self._is_long, row)) == 1 for row in zip(*columns, strict=True)]
        return [self._read_column(column, bounded) for column in columns]

    def _read_column(self, column: list[str], bounded: list[bool]) -> FlatIds:
        by_ends = [bound and self._is_long(text) for text, bound in zip(column, bounded, strict=True)]
        texts = [text for text, is_cut in zip(column, by_ends, strict=True) if not is_cut]
        whole = iter(_encode(self.tokenizer, texts))
        rows = [self._read_ends(text) if is_cut else next(whole) for text, is_cut in zip(column, by_ends, strict=True)]
        counts = np.fromiter(map(len, rows), np.int64, len(rows))
        return np.fromiter(chain.from_iterable(rows), np.int32, int(counts.sum())), counts

    def _read_ends(self, text: str) -> list[int]:
        assert self.ends is not None
        return self._ends_of_text.ends(text, *self.ends)

    @cached_property
    def _ends_of_text(self) -> EndsOfText:
        return EndsOfText(self.tokenizer.backend_tokenizer)

    def _is_long(self, text: str) -> bool:
        return len(text) >= self.long_text


def _ends_to_read(
    template: "SpecialTokenTemplate", truncation: Truncation, prompt: int, *, pair: bool
) -> tuple[int, int] | None:
    """Return how many ids of each end a row can hold, or None if all of a text must be read. prompt: ids of a prompt
    before the text."""
    if pair:
        return template.room + prompt, 0
    if truncation == "windows":
        return None
    first, last = tokens_kept_at_ends(template.room, truncation)
    return first + prompt, last


def _encode(tokenizer: "PreTrainedTokenizerFast", texts: list[str]) -> list[list[int]]:
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return [encoding.ids for encoding in encodings]


# Special tokens


@dataclass(frozen=True)
class SpecialTokenTemplate:
    """The special tokens around a text or a pair of texts."""

    specials: tuple[tuple[int, ...], ...]
    """The ids before, between and after the texts."""

    types: tuple[tuple[int, ...], ...]
    """The segment of each of these ids."""

    text_types: tuple[int, ...]
    """The segment of each text."""

    room: int
    """Tokens that are left for text."""

    @property
    def around(self) -> int:
        """Number of special tokens in a row."""
        return sum(map(len, self.specials))

    def with_prompt(self, ids: Sequence[int]) -> "SpecialTokenTemplate":
        """Return the template with the ids of a prompt before the first text.

        Raises:
            RecipeError: The prompt leaves no room for text.
        """
        room = self.room - len(ids)
        if ids and room < len(self.text_types):
            raise RecipeError(
                f"a prompt of {len(ids)} tokens leaves no room for text",
                where="--prompt",
                expected=f"less than {self.room} tokens",
                got=str(len(ids)),
                remedy="Shorten --prompt, pass --prompt '' for none, or raise --max-length.",
            )
        specials = ((*self.specials[0], *ids), *self.specials[1:])
        types = ((*self.types[0], *([self.text_types[0]] * len(ids))), *self.types[1:])
        return SpecialTokenTemplate(specials, types, self.text_types, room)


def read_special_token_template(
    tokenizer: "PreTrainedTokenizerFast", max_length: int, *, pair: bool
) -> SpecialTokenTemplate:
    """Find out what the tokenizer puts around a text, or around a pair, by encoding "a", or "a" and "a".

    Args:
        tokenizer: With padding and truncation switched off.
        max_length: Longest row in tokens.
        pair: Whether a row has two texts.

    Raises:
        RecipeError: max_length leaves no room for text.
    """
    encoding = tokenizer.backend_tokenizer.encode("a", "a") if pair else tokenizer.backend_tokenizer.encode("a")
    owners = list(encoding.sequence_ids)  # None for special tokens, else the number of the text
    runs: list[tuple[list[int], list[int]]] = [([], [])]
    text_types: list[int] = []
    for place, owner in enumerate(owners):
        if owner is None:
            runs[-1][0].append(encoding.ids[place])
            runs[-1][1].append(encoding.type_ids[place])
        elif place == 0 or owners[place - 1] != owner:
            text_types.append(encoding.type_ids[place])
            runs.append(([], []))
    room = max_length - sum(len(ids) for ids, _ in runs)
    if room < len(text_types):
        raise RecipeError(
            f"a length of {max_length} tokens leaves no room for text",
            where="--max-length",
            expected=f"more than the {max_length - room} special tokens around a text",
            got=str(max_length),
            remedy="Raise --max-length.",
        )
    specials, types = (tuple(tuple(run[part]) for run in runs) for part in (0, 1))
    return SpecialTokenTemplate(specials, types, tuple(text_types), room)


def assemble_rows(
    template: SpecialTokenTemplate, texts: list[FlatIds], truncation: Truncation, stride: int, texts_before: int
) -> Encoded:
    """Truncate texts and put the special tokens around them.

    Args:
        template: For as many texts per row as there are in `texts`.
        texts: The ids of the first texts, and of the second ones if rows are pairs.
        truncation: As for `tokenize`.
        stride: As for `tokenize`.
        texts_before: Number of the first text.
    """
    documents = None
    if len(texts) == 2:
        kept = truncate_longest_first(texts[0][1], texts[1][1], template.room)
        cut = [(flat[ends_mask(counts, room, 0)], room) for (flat, counts), room in zip(texts, kept, strict=True)]
    elif truncation == "windows":
        flat, counts = texts[0]
        documents, starts, ends = window_bounds(counts, template.room, stride)
        cut = [(flat[span_positions(row_offsets(counts)[documents] + starts, ends - starts)], ends - starts)]
        documents = documents + texts_before
    else:
        flat, counts = texts[0]
        first, last = tokens_kept_at_ends(template.room, truncation)
        cut = [(flat[ends_mask(counts, first, last)], np.minimum(counts, template.room))]
    return with_specials(template, cut, documents)


def with_specials(template: SpecialTokenTemplate, texts: list[FlatIds], documents: Ids | None = None) -> Encoded:
    """Build rows of one text or of a pair, with the template's special tokens around them.

    Args:
        template: For as many texts per row as there are in `texts`.
        texts: The ids of the first texts, and of the second ones if rows are pairs.
        documents: Which text each row is a window of, (rows,), if rows are windows.
    """
    lengths = sum((counts for _, counts in texts), np.int64(template.around))
    offsets = row_offsets(np.asarray(lengths))
    ids, types = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.uint8)
    place = offsets[:-1].copy()
    for number, (special, kinds) in enumerate(zip(template.specials, template.types, strict=True)):
        for token, kind in zip(special, kinds, strict=True):
            ids[place], types[place] = token, kind
            place += 1
        if number < len(texts):
            flat, counts = texts[number]
            spans = span_positions(place, counts)
            ids[spans], types[spans] = flat, template.text_types[number]
            place += counts
    return Encoded(ids, offsets, types, documents)


def concatenate_rows(rows: list[Encoded], segments: bool, truncation: Truncation) -> Encoded:
    """Return the rows of several chunks as one. segments: whether rows have token_type_ids."""
    lengths = np.concatenate([np.empty(0, np.int64), *(part.lengths for part in rows)])
    ids = np.concatenate([np.empty(0, np.int32), *(part.input_ids for part in rows)])
    types = np.concatenate([np.empty(0, np.uint8), *(part.token_type_ids for part in rows)]) if segments else None
    owners = [np.empty(0, np.int64), *(part.documents for part in rows if part.documents is not None)]
    return Encoded(ids, row_offsets(lengths), types, np.concatenate(owners) if truncation == "windows" else None)


def join_encoded(parts: Sequence[Encoded]) -> Encoded:
    """Put texts of several calls of `tokenize` with the same settings one after another.

    Args:
        parts: At least one; the texts of each are numbered from 0.
    """
    if len(parts) == 1:
        return parts[0]
    owners, texts = [], 0
    for part in parts:
        if part.documents is not None:
            owners.append(part.documents + texts)
            texts += int(part.documents[-1]) + 1 if len(part) else 0
    types = [part.token_type_ids for part in parts if part.token_type_ids is not None]
    return Encoded(
        np.concatenate([part.input_ids for part in parts]),
        row_offsets(np.concatenate([part.lengths for part in parts])),
        np.concatenate(types) if types else None,
        np.concatenate(owners) if owners else None,
    )


# From ids to batches


def pad_rows(
    encoded: Encoded,
    rows: Ids,
    *,
    pad_id: int,
    padding: Padding = "longest",
    max_length: int | None = None,
) -> dict[str, Ids]:
    """Build a batch of some rows.

    Padding is always on the right, also where the tokenizer would pad on the left: encoders count positions from the
    first token, and a text's scores must not depend on the other texts of its batch.

    Args:
        encoded: The rows to choose from.
        rows: Which rows, (batch,).
        pad_id: The tokenizer's padding id.
        padding: `longest` pads to the longest row, `max_length` to that length.
        max_length: Read for padding `max_length` only.

    Returns:
        `input_ids`; `token_type_ids` if the rows have segments; `attention_mask` (1 on text). Each is int64 (batch,
        tokens).
    """
    places, lengths = encoded.places(rows)
    width = max_length if padding == "max_length" else lengths.max()
    assert width is not None, "padding to max_length needs max_length"
    is_text = np.arange(width) < lengths[:, None]
    batch = {"input_ids": _pad(encoded.input_ids[places], is_text, pad_id)}
    if encoded.token_type_ids is not None:
        batch["token_type_ids"] = _pad(encoded.token_type_ids[places], is_text, 0)
    return batch | {"attention_mask": is_text.astype(np.int64)}


def _pad(flat: npt.NDArray[Any], is_text: npt.NDArray[np.bool_], value: int) -> Ids:
    padded = np.full(is_text.shape, value, dtype=np.int64)
    padded[is_text] = flat
    return padded
