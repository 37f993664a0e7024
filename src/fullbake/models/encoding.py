"""Which token ids of a text stay: arithmetic on lengths, for many texts at once.

Everything counts text tokens, special ones left out. The rules are those of the Rust tokenizers, so that a saved bundle
reads texts in plain transformers as it did here; `head+tail` is ours, after Sun et al. 2019 (arXiv 1905.05583).

Texts to token ids, and token ids to batches.

The base's own fast tokenizer runs over all texts in bulk, before any computing starts; what comes back is one
flat array of ids and the offsets of its rows, 4 bytes a token. The trade-off: all ids of a part are in memory
(160,000 comments are 60 MB), and in exchange the lengths are known beforehand, on which the batch plan
stands.

Truncation is done here, on whole rows of ids, never by the tokenizer: so the state that transformers leaves
in a tokenizer (the file of `demo` pads and cuts everything to 128) cannot change what is computed. A text that
windows cut is several rows; `Encoded.documents` says whose.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch

from fullbake.config.fields import Padding, Truncation
from fullbake.core.errors import DataError, RecipeError
from fullbake.models.long_texts import LONG_TEXT_CHARACTERS, EndsOfText
from fullbake.models.tokenizer import count_special_tokens, disable_padding_and_truncation

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedTokenizerFast


Ids = npt.NDArray[np.int64]

HEAD_SHARE: Final = 128 / 510
"""Of the 510 tokens that 512 leave for text, the first 128 and the last 382 (Sun et al. 2019, on dealing with long
texts); other lengths keep the ratio."""


def tokens_kept_at_ends(room: int, truncation: str) -> tuple[int, int]:
    """How many tokens of a too long text stay at its start and at its end: `room` in all."""
    head = {"head": room, "tail": 0, "head+tail": round(room * HEAD_SHARE)}[truncation]
    return head, room - head


def row_offsets(lengths: Ids) -> Ids:
    """Where each row starts in a flat array, and the end. (rows,) -> (rows + 1,)."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def ends_mask(lengths: Ids, first: int | Ids, last: int) -> npt.NDArray[np.bool_]:
    """True on the first and the last tokens of each row, (tokens,); on all of one no longer than their sum.

    first, last: how many, of all rows alike; `first` also of each (rows,).
    """
    starts = row_offsets(lengths)
    place = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
    kept = np.repeat(np.broadcast_to(first, lengths.shape), lengths)
    return (place < kept) | (place >= np.repeat(lengths, lengths) - last)


def window_bounds(lengths: Ids, room: int, stride: int) -> tuple[Ids, Ids, Ids]:
    """(documents, starts, ends) of all windows: each has `room` tokens, the last of a text what is left.

    Neighbors share `stride` tokens, as transformers counts it. A text that fits, an empty one too, is one window.
    Raises RecipeError where stride leaves no progress.
    """
    if not 0 <= stride < room:
        raise RecipeError(
            f"stride {stride} leaves windows no progress",
            expected=f"less than the {room} tokens that a window holds of the text",
            remedy="Lower --stride or raise --max-length.",
        )
    step = room - stride
    counts = 1 + -(-np.maximum(lengths - room, 0) // step)
    documents = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(len(documents)) - np.repeat(row_offsets(counts)[:-1], counts)
    starts = number * step
    return documents, starts, np.minimum(starts + room, lengths[documents])


def truncate_longest_first(first: Ids, second: Ids, room: int) -> tuple[Ids, Ids]:
    """Lengths that two texts keep together in `room`: the longer one gives way, until both are alike.

    first, second: (pairs,). Of an odd room the longer one has one more; of texts of equal length the second.
    """
    shorter = np.minimum(first, second)
    longer = np.maximum(shorter, np.minimum(np.maximum(first, second), room - shorter))
    halved = shorter + longer > room
    shorter = np.where(halved, room // 2, shorter)
    longer = np.where(halved, room // 2 + room % 2, longer)
    swapped = first > second
    return np.where(swapped, longer, shorter), np.where(swapped, shorter, longer)


# What goes through the tokenizer at once; its encodings are large until their ids are copied out.
_CHUNK_ROWS = 256
_CHUNK_CHARACTERS = 1 << 20


@dataclass(frozen=True, eq=False)
class Encoded:
    """Token ids of many texts, special tokens included.

    input_ids: all rows one after another, int32 (tokens,). offsets: where each row starts, and the end, int64
    (rows + 1,). token_type_ids: segment of each token, uint8 (tokens,); None for a base without segments.
    documents: which text each row is a window of, int64 (rows,), ascending; None where every row is a text.
    """

    input_ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    token_type_ids: npt.NDArray[np.uint8] | None = None
    documents: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Rows."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each row, (rows,)."""
        return np.diff(self.offsets)

    def take(self, rows: npt.NDArray[np.int64]) -> "Encoded":
        """These rows, in this order; of windows, each still of its text."""
        places, lengths = self.places(rows)
        types = None if self.token_type_ids is None else self.token_type_ids[places]
        documents = None if self.documents is None else self.documents[rows]
        return Encoded(self.input_ids[places], row_offsets(lengths), types, documents)

    def of_documents(self, texts: npt.NDArray[np.int64]) -> "Encoded":
        """These texts, in this order, with all their windows, numbered from 0."""
        if self.documents is None:
            return self.take(texts)
        rows, documents = window_rows(self.documents, texts)
        return replace(self.take(rows), documents=documents)

    def places(self, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Where the tokens of these rows stand in the flat arrays, row after row; and the rows' lengths."""
        starts, lengths = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        return span_positions(starts, lengths), lengths


def window_rows(
    documents: npt.NDArray[np.int64], texts: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(rows, documents): the rows that are windows of these texts, in their order, and which of them each is of, from
    0.

    documents: (rows,) ascending. texts: (n,).
    """
    starts = np.searchsorted(documents, texts)
    counts = np.searchsorted(documents, texts, side="right") - starts
    return span_positions(starts, counts), np.repeat(np.arange(len(texts)), counts)


def span_positions(starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Every position of spans of these starts and lengths, span after span."""
    first = np.repeat(starts - row_offsets(lengths)[:-1], lengths)
    return first + np.arange(len(first))


def tokenize(
    tokenizer: "PreTrainedTokenizerFast",
    texts: "pa.ChunkedArray | Iterable[str]",
    *,
    max_length: int,
    truncation: Truncation,
    stride: int = 0,
    text_pair: "pa.ChunkedArray | Iterable[str] | None" = None,
    on_progress: Callable[[int], object] | None = None,
) -> Encoded:
    """Token ids of all texts, each row at most max_length ids, special tokens included and always whole.

    truncation: which end of a longer text stays. `head` and `tail` give the ids that the tokenizer itself
    gives with that `truncation_side`; `head+tail` keeps the first 128/510 and the last 382/510 of what fits,
    so 128 and 382 at max_length 512 (Sun et al. 2019); `windows` gives a row for each piece of a text, of which
    neighbors share `stride` tokens, as the tokenizer does with return_overflowing_tokens. text_pair: the second
    text of each row, which comes into the same row; of a pair that is too long the longer text loses its end.
    token_type_ids come where the tokenizer's model_input_names hold them (see `set_defaults`). on_progress:
    called with the number of texts done since the last call. Memory beyond the result: that of 256 texts or a
    million characters; only windows, and pairs of two texts of over 65,536 characters, read all of a longer text.

    Raises RecipeError where max_length leaves no room for text, DataError for what is no text.
    """
    disable_padding_and_truncation(tokenizer)
    template = read_special_token_template(tokenizer, max_length, pair=text_pair is not None)
    columns = [texts] if text_pair is None else [texts, text_pair]
    rows: list[Encoded] = []
    done = 0
    reader = _Reader(tokenizer, _ends_read(template, truncation, pair=text_pair is not None))
    for portion in _text_chunks(columns):
        ids = reader.read(portion)
        rows.append(_assemble(template, ids, truncation, stride, done))
        done += len(portion[0])
        if on_progress:
            on_progress(len(portion[0]))
    return _joined(rows, "token_type_ids" in tokenizer.model_input_names, truncation)


def count_tokens(tokenizer: "PreTrainedTokenizerFast", texts: Iterable[str]) -> npt.NDArray[np.int64]:
    """Tokens of each whole text, special ones included, (texts,); of a text with a word of more than 65,536 characters
    a few more or less."""
    disable_padding_and_truncation(tokenizer)
    around = sum(count_special_tokens(tokenizer))
    long = EndsOfText(tokenizer.backend_tokenizer)
    counts = [_count(tokenizer, portion, long) for (portion,) in _text_chunks([texts])]
    return np.concatenate([np.empty(0, np.int64), *counts]) + around


def collate(
    encoded: Encoded,
    rows: npt.NDArray[np.int64],
    *,
    pad_id: int,
    padding: Padding = "longest",
    max_length: int | None = None,
) -> dict[str, torch.Tensor]:
    """The rows as one batch: the keyword arguments of a base's forward, each int64 (rows, tokens).

    max_length: what padding `max_length` pads to; no other padding looks at it. `attention_mask` (1 on text)
    is left out where nothing is padding, `token_type_ids` where the base has none. Padding is always on the
    right, also where the tokenizer would pad on the left: encoders count positions from the first token, and
    a text's scores must not hang on its neighbors.
    """
    places, lengths = encoded.places(rows)
    width = max_length if padding == "max_length" else lengths.max()
    assert width is not None, "padding to max_length needs max_length"
    mask = np.arange(width) < lengths[:, None]
    batch = {"input_ids": _pad(encoded.input_ids[places], mask, pad_id)}
    if encoded.token_type_ids is not None:
        batch["token_type_ids"] = _pad(encoded.token_type_ids[places], mask, 0)
    if not mask.all():
        batch["attention_mask"] = torch.from_numpy(mask.astype(np.int64))
    return batch


def _pad(flat: npt.NDArray[Any], mask: npt.NDArray[np.bool_], value: int) -> torch.Tensor:
    padded = np.full(mask.shape, value, dtype=np.int64)
    padded[mask] = flat
    return torch.from_numpy(padded)


# From texts to ids


def _text_chunks(columns: "list[pa.ChunkedArray | Iterable[str]]") -> Iterator[list[list[str]]]:
    """The texts of one or two columns in order, in lists small enough to tokenize at once, a list a column."""
    portion: list[tuple[str, ...]] = []
    characters = 0
    values = [map(_plain, column) if hasattr(column, "combine_chunks") else column for column in columns]
    for number, row in enumerate(zip(*values, strict=True), 1):
        for text in row:
            _refuse_other_than_text(text, number)
            characters += len(text)
        portion.append(row)
        if len(portion) == _CHUNK_ROWS or characters >= _CHUNK_CHARACTERS:
            yield [list(column) for column in zip(*portion, strict=True)]
            portion, characters = [], 0
    if portion:
        yield [list(column) for column in zip(*portion, strict=True)]


def _plain(value: Any) -> Any:
    return value.as_py()


def _refuse_other_than_text(text: Any, number: int) -> None:
    """A null is no text, and what is not Unicode has no ids. number: the text's place, from 1."""
    if not isinstance(text, str):
        raise DataError("not a text", where=f"text {number}", expected="a string", got=repr(text))
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


Flat = tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]
"""The ids of many texts one after another, and the number of each."""


@dataclass(frozen=True)
class _Reader:
    """Texts to text ids: nothing truncated, no special token around them; but of a long text only what truncation
    leaves of it is looked for.

    ends: how many ids it leaves at the start and at the end of a text, None for all.
    """

    tokenizer: "PreTrainedTokenizerFast"
    ends: tuple[int, int] | None

    def read(self, columns: list[list[str]]) -> list[Flat]:
        """The ids of one or two columns of texts. A pair of two long texts is read whole: which one gives way hangs on
        which is longer."""
        bounded = [self.ends is not None and sum(map(_is_long, row)) == 1 for row in zip(*columns, strict=True)]
        return [self._flat(column, bounded) for column in columns]

    def _flat(self, column: list[str], bounded: list[bool]) -> Flat:
        cut = [bound and _is_long(text) for text, bound in zip(column, bounded, strict=True)]
        whole = iter(_encode(self.tokenizer, [text for text, is_cut in zip(column, cut, strict=True) if not is_cut]))
        rows = [self._ends_of(text) if is_cut else next(whole) for text, is_cut in zip(column, cut, strict=True)]
        counts = np.fromiter(map(len, rows), np.int64, len(rows))
        return np.fromiter(chain.from_iterable(rows), np.int32, int(counts.sum())), counts

    def _ends_of(self, text: str) -> list[int]:
        assert self.ends is not None
        return self._excerpts.ends(text, *self.ends)

    @cached_property
    def _excerpts(self) -> EndsOfText:
        return EndsOfText(self.tokenizer.backend_tokenizer)


def _is_long(text: str) -> bool:
    return len(text) >= LONG_TEXT_CHARACTERS


def _ends_read(template: "SpecialTokenTemplate", truncation: Truncation, *, pair: bool) -> tuple[int, int] | None:
    """How many ids of each end a row has at most, None where all of a text is read."""
    if pair:
        return template.room, 0
    return None if truncation == "windows" else tokens_kept_at_ends(template.room, truncation)


def _encode(tokenizer: "PreTrainedTokenizerFast", texts: list[str]) -> list[list[int]]:
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return [encoding.ids for encoding in encodings]


def _count(tokenizer: "PreTrainedTokenizerFast", texts: list[str], long: EndsOfText) -> npt.NDArray[np.int64]:
    counts = map(len, _encode(tokenizer, [text for text in texts if not _is_long(text)]))
    return np.array([long.count(text) if _is_long(text) else next(counts) for text in texts], np.int64)


@dataclass(frozen=True)
class SpecialTokenTemplate:
    """The special tokens around a text or a pair.

    specials: the ids before, between and after the texts. types: the segment of each of them. text_types: the segment
    of each text. room: tokens left for text.
    """

    specials: tuple[tuple[int, ...], ...]
    types: tuple[tuple[int, ...], ...]
    text_types: tuple[int, ...]
    room: int

    @property
    def around(self) -> int:
        """Special tokens of a row."""
        return sum(map(len, self.specials))


def read_special_token_template(
    tokenizer: "PreTrainedTokenizerFast", max_length: int, *, pair: bool
) -> SpecialTokenTemplate:
    """Read off what the tokenizer sets around "a", or around "a" and "a"."""
    encoding = tokenizer.backend_tokenizer.encode("a", "a") if pair else tokenizer.backend_tokenizer.encode("a")
    owners = list(encoding.sequence_ids)
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
            f"max_length {max_length} leaves no room for text",
            expected=f"more than the {max_length - room} special tokens around it",
            remedy="Raise max_length.",
        )
    specials, types = (tuple(tuple(run[part]) for run in runs) for part in (0, 1))
    return SpecialTokenTemplate(specials, types, tuple(text_types), room)


def _assemble(
    template: SpecialTokenTemplate, texts: list[Flat], truncation: Truncation, stride: int, done: int
) -> Encoded:
    """Rows out of the ids of texts: cut, and the special tokens put around them. done: texts before these."""
    documents = None
    if len(texts) == 2:
        kept = truncate_longest_first(texts[0][1], texts[1][1], template.room)
        cut = [(flat[ends_mask(counts, room, 0)], room) for (flat, counts), room in zip(texts, kept, strict=True)]
    elif truncation == "windows":
        flat, counts = texts[0]
        documents, starts, ends = window_bounds(counts, template.room, stride)
        cut = [(flat[span_positions(row_offsets(counts)[documents] + starts, ends - starts)], ends - starts)]
        documents = documents + done
    else:
        flat, counts = texts[0]
        first, last = tokens_kept_at_ends(template.room, truncation)
        cut = [(flat[ends_mask(counts, first, last)], np.minimum(counts, template.room))]
    return with_specials(template, cut, documents)


def with_specials(
    template: SpecialTokenTemplate, texts: list[Flat], documents: npt.NDArray[np.int64] | None = None
) -> Encoded:
    """Rows of one text each, or of a pair, with the template's special tokens around them."""
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


def _joined(rows: list[Encoded], segments: bool, truncation: Truncation) -> Encoded:
    lengths = np.concatenate([np.empty(0, np.int64), *(part.lengths for part in rows)])
    ids = np.concatenate([np.empty(0, np.int32), *(part.input_ids for part in rows)])
    types = np.concatenate([np.empty(0, np.uint8), *(part.token_type_ids for part in rows)]) if segments else None
    owners = [np.empty(0, np.int64), *(part.documents for part in rows if part.documents is not None)]
    return Encoded(ids, row_offsets(lengths), types, np.concatenate(owners) if truncation == "windows" else None)
