"""Load a base's own fast tokenizer, refuse one that cannot be used, and set what its saved file must do.

Padding and truncation in its file are switched off: `encoding` does both, on rows of ids. transformers is imported only
where a tokenizer is loaded, so that ids can be made from a bundle's tokenizer.json without it.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fullbake.config.fields import Truncation
from fullbake.core.errors import BaseModelError
from fullbake.models.tokenizer_file import check_unknown_letters, hold_to_file
from fullbake.models.tokenizer_safety import check_tokenizer_file, explain_failure

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Settings that a file with padding and truncation, or loading, leaves in a tokenizer. A bundle must not keep them.
_STALE_SETTINGS = ("max_length", "stride", "truncation_strategy", "pad_to_multiple_of", "local_files_only")


UNKNOWN_TOKENS_WARNING: Final = 0.02
"""Share of unknown tokens above which there is a warning. In a language that the tokenizer knows it is under 0.5%."""


def warn_of_unknown_tokens(share: float) -> str | None:
    """Return what to do about the unknown tokens of some texts, None if they are few.

    Args:
        share: their share of all tokens, from 0 to 1.
    """
    if share <= UNKNOWN_TOKENS_WARNING:
        return None
    return (
        f"{share:.1%} of the tokens are unknown to the base's tokenizer, and the base reads all of them as the same "
        "sign. Choose a base whose vocabulary has the language and script of these texts (a multilingual one, or one "
        "of this language), or train one from random weights on such text: fullbake pretrain --init random"
    )


def load_tokenizer(base: Path | str) -> "PreTrainedTokenizerFast":
    """Load the fast tokenizer of a base or a bundle, with padding and truncation switched off.

    No code from a base is run.

    Args:
        base: `demo`, a folder, or a hub id.

    Raises:
        BaseModelError: There is no tokenizer, only a slow one, one without a padding token, one that puts no special
            tokens around a text, one that fails on letters that it does not know, or one that transformers cannot use
            as tokenizer.json has it.
    """
    return load_tokenizer_and_note(base)[0]


def load_tokenizer_and_note(base: Path | str) -> "tuple[PreTrainedTokenizerFast, str | None]":
    """Load a tokenizer as `load_tokenizer` does, and say where transformers would have built another one.

    Returns:
        The tokenizer, and a sentence for the user if tokenizer.json had to be used in place of what transformers makes
        of it.
    """
    from fullbake.models.pretrained import find_base_file, resolve_base

    place = resolve_base(base)
    file, note = find_base_file(place, "tokenizer.json"), None
    with explain_failure(place):
        tokenizer: Any = _read(place)
        _check(tokenizer, place)
        if file is not None:
            tokenizer, note = hold_to_file(tokenizer, file, place)
            _check(tokenizer, place)
        disable_padding_and_truncation(tokenizer)
        check_unknown_letters(tokenizer, place)
        count_special_tokens(tokenizer)
    for key in _STALE_SETTINGS:
        tokenizer.init_kwargs.pop(key, None)
    return tokenizer, note


def load_mlm_tokenizer(base: str | Path) -> "PreTrainedTokenizerFast":
    """Load the tokenizer of a base for masked-LM training: as `load_tokenizer`, with the defaults of `set_defaults`.

    Args:
        base: `demo`, a folder, or a hub id.

    Raises:
        BaseModelError: As for `load_tokenizer`; or the tokenizer has no mask token.
    """
    from fullbake.models.pretrained import load_config, max_positions, takes_segments

    tokenizer = load_tokenizer(base)
    config = load_config(base)
    set_defaults(
        tokenizer,
        max_length=max_positions(config),
        truncation="head",
        has_token_type_ids=takes_segments(config),
    )
    if tokenizer.mask_token_id is None:
        raise BaseModelError(
            "its tokenizer has no mask token",
            where=f"base '{base}'",
            expected="a token that takes the place of a word to predict, such as [MASK]",
            remedy='Name one of its vocabulary in tokenizer_config.json: "mask_token": "[MASK]".',
        )
    return tokenizer


def set_defaults(
    tokenizer: "PreTrainedTokenizerFast", *, max_length: int, truncation: Truncation, has_token_type_ids: bool
) -> None:
    """Make a tokenizer's saved file do in plain transformers what fullbake does.

    `pipeline(..., truncation=True)` then cuts texts at max_length and at the same end. transformers has no `head+tail`,
    so that becomes `head`.

    Args:
        tokenizer: Changed in place.
        max_length: Longest row in tokens, special ones included.
        truncation: The recipe's; `tail` keeps the end of a text.
        has_token_type_ids: Whether the model takes segments, see `pretrained.takes_segments`. The tokenizer gives
            segments if it makes them and the model takes them.
    """
    disable_padding_and_truncation(tokenizer)
    names = [name for name in tokenizer.model_input_names if has_token_type_ids or name != "token_type_ids"]
    side = "left" if truncation == "tail" else "right"
    settings = {"model_max_length": max_length, "truncation_side": side, "padding_side": "right"}
    for name, value in (settings | {"model_input_names": names}).items():
        setattr(tokenizer, name, value)
        tokenizer.init_kwargs[name] = value  # only what is in init_kwargs is written to the file


def disable_padding_and_truncation(tokenizer: Any) -> None:
    """Switch the tokenizer's own padding and truncation off; any call of it may have switched them on.

    Where they are off already nothing is changed: the Rust side refuses a change while another thread encodes.

    Args:
        tokenizer: As `load_tokenizer` or `light_tokenizer.read_light_tokenizer` gives it.
    """
    backend = tokenizer.backend_tokenizer
    if backend.truncation is not None:
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()


def count_special_tokens(tokenizer: "PreTrainedTokenizerFast") -> tuple[int, int]:
    """Return how many special tokens the tokenizer puts before and after a text.

    Raises:
        BaseModelError: It puts none.
    """
    disable_padding_and_truncation(tokenizer)
    mask = tokenizer.backend_tokenizer.encode("a").special_tokens_mask
    if 0 not in mask or 1 not in mask:
        raise BaseModelError(
            "its tokenizer sets no special tokens around a text",
            where=f"base '{tokenizer.name_or_path}'",
            expected="an encoder's tokenizer, which marks where a text starts or ends",
            remedy="Restore the post-processor in its tokenizer.json, or choose another base.",
        )
    return mask.index(0), mask[::-1].index(0)


# Tokenizers that are refused


def token_pieces(tokenizer: "PreTrainedTokenizerFast", vocabulary: int) -> list[str]:
    """Return each token as text, (vocabulary,): one that begins a word begins with a space, special ones are empty.

    Args:
        tokenizer: Of WordPiece (`##` within words), byte-level BPE or SentencePiece (a mark where words begin).
        vocabulary: Number of token ids; ids that the tokenizer does not have are empty.
    """
    pieces = [""] * vocabulary
    tokens = {number: token for token, number in tokenizer.get_vocab().items() if number < vocabulary}
    marks_inside = any(token.startswith("##") for token in tokens.values())
    for number, token in tokens.items():
        if marks_inside:
            pieces[number] = token[2:] if token.startswith("##") else f" {token}"
        else:
            pieces[number] = token.replace("\u0120", " ").replace("\u2581", " ")
    for number in tokenizer.all_special_ids:
        if number < vocabulary:
            pieces[number] = ""
    return pieces


def _read(place: Path | str) -> Any:
    from transformers import AutoTokenizer

    from fullbake.models.pretrained import explain_load_errors, find_base_file, first_line, quiet_transformers

    file = find_base_file(place, "tokenizer.json")
    if file is not None:
        check_tokenizer_file(file, place)
    with explain_load_errors(place), quiet_transformers():
        try:
            return AutoTokenizer.from_pretrained(
                place, trust_remote_code=False, local_files_only=isinstance(place, Path)
            )
        except OSError:
            raise
        except Exception as error:  # the Rust side raises bare Exception
            raise _unusable(place, "its tokenizer cannot be read", first_line(error)) from error


def _check(tokenizer: Any, place: Path | str) -> None:
    """Raise BaseModelError if a tokenizer was loaded but cannot be used."""
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


def _has_vocabulary(tokenizer: Any, place: Path | str) -> bool:
    """Return True if the vocabulary came from the base.

    Where the files are missing, transformers 5 silently makes a vocabulary of the special tokens alone.
    """
    names = dict(tokenizer.vocab_files_names)
    whole = names.pop("tokenizer_file", "tokenizer.json")
    return _has_file(place, whole) or (bool(names) and all(_has_file(place, name) for name in names.values()))


def _has_file(place: Path | str, name: str) -> bool:
    from fullbake.models.pretrained import find_base_file

    return find_base_file(place, name) is not None


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
