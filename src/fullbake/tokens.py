"""Texts to token ids, and token ids to batches.

The base's own fast tokenizer runs over all texts in bulk, before any computing starts; what comes back is one
flat array of ids and the offsets of its rows, 4 bytes a token. The trade-off: all ids of a part are in memory
(160,000 comments are 60 MB), and in exchange the lengths are known beforehand, on which the batch plan
stands.

Truncation is done here, on whole rows of ids, never by the tokenizer: so the state that transformers leaves
in a tokenizer (the file of `demo` pads and cuts everything to 128) cannot change what is computed, and all
three kinds of truncation are one rule.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils.hub import cached_file

from fullbake.bases import explained, quiet, resolve
from fullbake.config import Padding, Truncation
from fullbake.errors import BaseModelError, DataError, RecipeError

# Of the 510 tokens that 512 leave for text, the first 128 and the last 382 (Sun et al. 2019, arXiv
# 1905.05583, on dealing with long texts); other lengths keep the ratio.
_HEAD_SHARE = 128 / 510

# What goes through the tokenizer at once; its encodings are large until their ids are copied out.
_PORTION_ROWS = 256
_PORTION_CHARACTERS = 1 << 20

# What a file that pads and truncates leaves in a tokenizer, and what loading does; no business of a bundle's.
_STALE = ("max_length", "stride", "truncation_strategy", "pad_to_multiple_of", "local_files_only")


@dataclass(frozen=True, eq=False)
class Encoded:
    """Token ids of many texts, special tokens included.

    input_ids: all rows one after another, int32 (tokens,). offsets: where each row starts, and the end, int64
    (rows + 1,). token_type_ids: segment of each token, uint8 (tokens,); None for a base without segments.
    """

    input_ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    token_type_ids: npt.NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        """Rows."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each row, (rows,)."""
        return np.diff(self.offsets)

    def take(self, rows: npt.NDArray[np.int64]) -> "Encoded":
        """These rows, in this order."""
        places, lengths = self.places(rows)
        types = None if self.token_type_ids is None else self.token_type_ids[places]
        return Encoded(self.input_ids[places], _offsets(lengths), types)

    def places(self, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Where the tokens of these rows stand in the flat arrays, row after row; and the rows' lengths."""
        starts, lengths = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        first = np.repeat(starts - _offsets(lengths)[:-1], lengths)
        return first + np.arange(len(first)), lengths


def load_tokenizer(base: Path | str) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a base or a bundle, what padding and truncation its file carries switched off.

    Raises BaseModelError where there is none, where only a slow one can be had, or where it lacks what a
    batch of several texts needs: a padding token, and special tokens around a text. Code in a base is never
    run.
    """
    place = resolve(base)
    tokenizer: PreTrainedTokenizerFast = _read(place)
    _check(tokenizer, place)
    _switch_off(tokenizer)
    for key in _STALE:
        tokenizer.init_kwargs.pop(key, None)
    return tokenizer


def set_defaults(
    tokenizer: PreTrainedTokenizerFast, *, max_length: int, truncation: Truncation, has_token_type_ids: bool
) -> None:
    """Tell a tokenizer what it serves, so that its saved file does in plain transformers what was done here.

    has_token_type_ids: whether the model takes segments (its config's type_vocab_size is not 0); the
    tokenizer gives them where it makes them and the model takes them. `pipeline(..., truncation=True)` then
    cuts at max_length and at the same end: `tail` keeps the end of a text; `head+tail` has no counterpart
    there and becomes `head`.
    """
    _switch_off(tokenizer)
    names = [name for name in tokenizer.model_input_names if has_token_type_ids or name != "token_type_ids"]
    side = "left" if truncation == "tail" else "right"
    settings = {"model_max_length": max_length, "truncation_side": side, "padding_side": "right"}
    for name, value in (settings | {"model_input_names": names}).items():
        setattr(tokenizer, name, value)
        tokenizer.init_kwargs[name] = value  # only what stands here is written to the file


def tokenize(
    tokenizer: PreTrainedTokenizerFast,
    texts: pa.ChunkedArray | Iterable[str],
    *,
    max_length: int,
    truncation: Truncation,
    on_progress: Callable[[int], object] | None = None,
) -> Encoded:
    """Token ids of all texts, each row at most max_length ids, special tokens included and always whole.

    truncation: which end of a longer text stays. `head` and `tail` give the ids that the tokenizer itself
    gives with that `truncation_side`; `head+tail` keeps the first 128/510 and the last 382/510 of what fits,
    so 128 and 382 at max_length 512 (Sun et al. 2019). token_type_ids come where the tokenizer's
    model_input_names hold them (see `set_defaults`); a single text is all segment 0. on_progress: called with
    the number of texts done since the last call. Memory beyond the result: that of 256 texts or a million
    characters, or of one text that is longer.

    Raises RecipeError where max_length leaves no room for text, DataError for what is no text.
    """
    first, last = _kept_ends(tokenizer, max_length, truncation)
    _switch_off(tokenizer)  # any call of the tokenizer itself may have switched them on
    ids, lengths = [np.empty(0, np.int32)], [np.empty(0, np.int64)]
    for portion in _portions(texts):
        flat, counts = _encode(tokenizer, portion)
        ids.append(flat[_within_ends(counts, first, last)])
        lengths.append(np.minimum(counts, max_length))
        if on_progress:
            on_progress(len(portion))
    input_ids = np.concatenate(ids)
    segments = "token_type_ids" in tokenizer.model_input_names
    types = np.zeros(len(input_ids), np.uint8) if segments else None
    return Encoded(input_ids, _offsets(np.concatenate(lengths)), types)


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


# Which tokenizers are refused


def _read(place: Path | str) -> Any:
    with explained(place), quiet():
        try:
            return AutoTokenizer.from_pretrained(
                place, trust_remote_code=False, local_files_only=isinstance(place, Path)
            )
        except OSError:
            raise
        except Exception as error:  # the Rust side raises bare Exception
            raise _unusable(place, "its tokenizer cannot be read", _first_line(error)) from error


def _check(tokenizer: Any, place: Path | str) -> None:
    """Refuse what loads but cannot be used."""
    if not tokenizer.is_fast:
        raise _unusable(place, "its tokenizer has no fast version", type(tokenizer).__name__)
    if not _has_vocabulary(tokenizer, place):
        raise _unusable(place, "it holds no tokenizer", "no tokenizer.json")
    if tokenizer.pad_token_id is None:
        raise BaseModelError(
            "its tokenizer has no padding token",
            where=f"base '{place}'",
            expected="a token to pad with, which batches of several texts need",
            remedy='Name one of its vocabulary in tokenizer_config.json, such as "pad_token": "[PAD]".',
        )
    _special_tokens(tokenizer)


def _has_vocabulary(tokenizer: Any, place: Path | str) -> bool:
    """Whether the vocabulary came from the base.

    Where the files are missing, transformers 5 makes up a vocabulary of the special tokens alone, without a
    word.
    """
    names = dict(tokenizer.vocab_files_names)
    whole = names.pop("tokenizer_file", "tokenizer.json")
    return _holds(place, whole) or (bool(names) and all(_holds(place, name) for name in names.values()))


def _holds(place: Path | str, name: str) -> bool:
    if isinstance(place, Path):
        return (place / name).is_file()
    return cached_file(place, name, _raise_exceptions_for_missing_entries=False) is not None


def _unusable(place: Path | str, what: str, got: str) -> BaseModelError:
    return BaseModelError(
        what,
        where=f"base '{place}'",
        expected="a fast tokenizer: tokenizer.json, or the vocabulary files it can be made from",
        got=got,
        remedy="Copy the tokenizer files of the model that this base was made from into its folder. Where "
        "there is only a SentencePiece model, install sentencepiece, then run "
        "AutoTokenizer.from_pretrained(folder).save_pretrained(folder) once.",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")


# From texts to ids


def _switch_off(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()


def _kept_ends(tokenizer: PreTrainedTokenizerFast, max_length: int, truncation: Truncation) -> tuple[int, int]:
    """How many ids of a too long row stay at its start and at its end, special tokens included."""
    before, after = _special_tokens(tokenizer)
    room = max_length - before - after
    if room < 1:
        raise RecipeError(
            f"max_length {max_length} leaves no room for text",
            expected=f"more than the {before + after} special tokens around it",
            remedy="Raise max_length.",
        )
    head = {"head": room, "tail": 0, "head+tail": round(room * _HEAD_SHARE)}[truncation]
    return before + head, room - head + after


def _special_tokens(tokenizer: PreTrainedTokenizerFast) -> tuple[int, int]:
    """How many special tokens the tokenizer sets before and after a text."""
    _switch_off(tokenizer)
    mask = tokenizer.backend_tokenizer.encode("a").special_tokens_mask
    if 0 not in mask or 1 not in mask:
        raise BaseModelError(
            "its tokenizer sets no special tokens around a text",
            where=f"base '{tokenizer.name_or_path}'",
            expected="an encoder's tokenizer, which marks where a text starts or ends",
            remedy="Restore the post-processor in its tokenizer.json, or choose another base.",
        )
    return mask.index(0), mask[::-1].index(0)


def _portions(texts: pa.ChunkedArray | Iterable[str]) -> Iterator[list[str]]:
    """The texts in order, in lists small enough to tokenize at once."""
    portion: list[str] = []
    characters = 0
    values = (value.as_py() for value in texts) if isinstance(texts, pa.ChunkedArray) else texts
    for number, text in enumerate(values, 1):
        _refuse_other_than_text(text, number)
        portion.append(text)
        characters += len(text)
        if len(portion) == _PORTION_ROWS or characters >= _PORTION_CHARACTERS:
            yield portion
            portion, characters = [], 0
    if portion:
        yield portion


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


def _encode(
    tokenizer: PreTrainedTokenizerFast, portion: list[str]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """The ids of all texts one after another, and the number of each; nothing truncated."""
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(portion)
    counts = np.fromiter(map(len, encodings), np.int64, len(encodings))
    flat = chain.from_iterable(encoding.ids for encoding in encodings)
    return np.fromiter(flat, np.int32, int(counts.sum())), counts


def _within_ends(lengths: npt.NDArray[np.int64], first: int, last: int) -> npt.NDArray[np.bool_]:
    """True on the first and the last ids of each row, (tokens,); on all of one no longer than their sum."""
    starts = _offsets(lengths)
    place = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
    return (place < first) | (place >= np.repeat(lengths, lengths) - last)


def _offsets(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
