"""Hold a tokenizer to its tokenizer.json: the ids of a text are those that the `tokenizers` library gives on that file.

transformers 5 builds many tokenizers anew from the vocabulary in tokenizer.json, by the class that it knows for the
architecture. The normalizer of the file is then lost where it differs from that of the class, and with it the ids the
base was trained on. Probe texts are encoded both ways; where they differ, the file is used as it is.
"""

import string
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fullbake.core.errors import BaseModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

PROBE_TEXTS: Final = (
    "The quick brown fox jumps over the lazy dog.",
    "MIXED Case wOrds, ALL CAPITALS and iPhone",
    "café naïve Ångström ÉCOLE über Straße İstanbul",
    "cafe\u0301 decomposed A\u030angstro\u0308m",
    "ＦＵＬＬ width ｌｅｔｔｅｒｓ １２３",
    "ligatures ﬁ ﬂ, fractions ½ ¼, powers x² and 5㎞",
    "emoji 😀 👍🏽 👩‍👩‍👧 ❤️ #hash @name",
    "中文分词 日本語のテスト ｶﾀｶﾅ 한국어 시험",
    "العربيّة اختبار עברית שָׁלוֹם हिन्दी परीक्षण ไทย",
    "Привет МИР Ελληνικά ΚΕΦΑΛΑΙΑ ς",
    "  spaces   twice  \t tab\nline end \r\n and\u00a0hard\u3000wide  ",
    "zero\u200bwidth soft\u00adhyphen \ufefffirst \u2028 separator \x07 bell",
    "don't can't we'll — dash… “quotes” ``old'' 'single'",
    "1,234.56 2024-01-31 3rd 100% $5 €7 a/b c_d e-mail@x.org http://x.org/?a=1&b=2",
    "<b>tags</b> [brackets] {braces} (round) ~tilde^ `code` \\back|pipe",
    "a",
    " ",
)
"""Texts on which tokenizers show how they treat case, accents, width, spaces, scripts, signs and invisible characters.
"""

_RARE_LETTERS: Final = "𐎀𐎁𐎂 ᚠᚢᚦ 𐀀𐀁 ꙮ Ꮳ ߐ 𝔄 ⵣ ꔀ ᠠ"
"""Letters of scripts that hardly any vocabulary has."""

_SPECIAL_NAMES: Final = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")

_MANY_CAPITALS: Final = 0.01
"""Share of pieces with capital letters above which a vocabulary is one of cased text. Uncased ones have none."""


# The ids of tokenizer.json


def hold_to_file(tokenizer: Any, file: Path, place: Path | str) -> "tuple[PreTrainedTokenizerFast, str | None]":
    """Return a tokenizer whose ids are those of a tokenizer.json.

    Args:
        tokenizer: As transformers loaded it.
        file: The tokenizer.json.
        place: The base, for errors.

    Returns:
        The tokenizer itself where its ids are those of the file, else one around the file with the same special
        tokens; and a sentence for the user in the second case.

    Raises:
        BaseModelError: The file cannot be read, or no tokenizer of transformers gives its ids.
    """
    own = _read_file(file, place)
    if _gives_ids_of(tokenizer, own):
        return tokenizer, None
    around = _wrap(own, tokenizer)
    if not _gives_ids_of(around, own):
        raise BaseModelError(
            "its tokenizer.json gives other token ids than the tokenizer that transformers makes of it",
            where=f"base '{place}'",
            expected="a tokenizer.json and a tokenizer_config.json that fit together",
            remedy='Set "tokenizer_class": "PreTrainedTokenizerFast" in tokenizer_config.json of a copy of the folder, '
            "and remove special tokens there that tokenizer.json lacks.",
        )
    return around, (
        f"transformers would build a {type(tokenizer).__name__} that gives other token ids than the base's "
        "tokenizer.json; fullbake uses tokenizer.json as it is"
    )


def _read_file(file: Path, place: Path | str) -> "Tokenizer":
    from tokenizers import Tokenizer

    try:
        own = Tokenizer.from_file(str(file))
    except Exception as error:  # the Rust side raises bare Exception
        raise BaseModelError(
            "its tokenizer.json cannot be read", where=f"base '{place}'", got=str(error), remedy="Copy the file again."
        ) from error
    own.no_padding()
    own.no_truncation()
    return own


def _gives_ids_of(tokenizer: Any, own: "Tokenizer") -> bool:
    """Return True if a tokenizer of transformers gives the ids of a tokenizer.json.

    It may have special tokens beside those of the file, such as a padding token.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    if backend.get_vocab_size() != own.get_vocab_size() and not _adds_only_special_tokens(tokenizer, own):
        return False
    added = [token.content for token in own.get_added_tokens_decoder().values()]
    texts: list[Any] = [*PROBE_TEXTS, (PROBE_TEXTS[0], PROBE_TEXTS[1])]
    texts += [f"some{token}words {token} around" for token in added[:64]]
    segments = "token_type_ids" in tokenizer.model_input_names
    try:
        pairs = zip(backend.encode_batch(texts), own.encode_batch(texts), strict=True)
    except Exception:  # a text that the tokenizer fails on is reported by `check_unknown_letters`
        return bool(backend.to_str() == own.to_str())
    return all(left.ids == right.ids and (not segments or left.type_ids == right.type_ids) for left, right in pairs)


def _adds_only_special_tokens(tokenizer: Any, own: "Tokenizer") -> bool:
    known, found = own.get_vocab(), tokenizer.backend_tokenizer.get_vocab()
    beside = {token for token, number in found.items() if known.get(token) != number}
    return len(found) >= len(known) and beside <= set(tokenizer.all_special_tokens) - known.keys()


def _wrap(own: "Tokenizer", tokenizer: Any) -> Any:
    """Return the file's tokenizer as one of transformers, with the special tokens of another one that it knows."""
    from transformers import PreTrainedTokenizerFast

    named = {f"{name}_token": getattr(tokenizer, f"{name}_token") for name in _SPECIAL_NAMES}
    known = {name: token for name, token in named.items() if token is not None and own.token_to_id(token) is not None}
    return PreTrainedTokenizerFast(
        tokenizer_object=own,
        model_input_names=list(tokenizer.model_input_names),
        model_max_length=tokenizer.model_max_length,
        name_or_path=tokenizer.name_or_path,
        **known,
    )


# What a vocabulary must have


def check_unknown_letters(tokenizer: Any, place: Path | str) -> None:
    """Raise BaseModelError if a tokenizer fails on letters that it does not know, since it has no unknown token.

    Args:
        tokenizer: As transformers loaded it, with padding and truncation switched off.
        place: The base, for the error.
    """
    try:
        tokenizer.backend_tokenizer.encode_batch([_RARE_LETTERS, *PROBE_TEXTS])
    except Exception as error:  # the Rust side raises bare Exception
        model = tokenizer.backend_tokenizer.model
        unknown = getattr(model, "unk_token", None) or tokenizer.unk_token
        raise BaseModelError(
            "its tokenizer fails on letters that it does not know",
            where=f"base '{place}'",
            expected=f"a vocabulary that has the unknown token {unknown!r}"
            if unknown
            else "a vocabulary with an unknown token",
            got=str(error),
            remedy="Copy the tokenizer files of the model that this base was made from into its folder, or choose "
            "another base.",
        ) from error


def describe_unknown(tokenizer: Any) -> str | None:
    """Return a sentence if a tokenizer drops letters that it does not know; None if it has a token for them.

    Args:
        tokenizer: As `load_tokenizer` gives it.
    """
    backend = tokenizer.backend_tokenizer
    dropped = [word for word in _RARE_LETTERS.split() if not backend.encode(word, add_special_tokens=False).ids]
    if not dropped:
        return None
    return (
        f"its tokenizer has no unknown token and drops letters that it does not know, such as {dropped[0]!r}: texts of "
        "another script are read as empty"
    )


def refuse_ids_beyond_table(tokenizer: Any, rows: int, place: Path | str) -> None:
    """Raise BaseModelError if a tokenizer can give ids for which the base has no embedding.

    Args:
        tokenizer: As `load_tokenizer` gives it.
        rows: Rows of the base's embedding table.
        place: The base, for the error.
    """
    ids: dict[int, str] = {number: token for token, number in tokenizer.get_vocab().items()}
    for encoding in tokenizer.backend_tokenizer.encode_batch(list(PROBE_TEXTS)):
        # a post-processor may set ids of its own, which no vocabulary has
        ids |= {number: token for number, token in zip(encoding.ids, encoding.tokens, strict=True) if number >= rows}
    beyond = sorted(number for number in ids if number >= rows)
    if not beyond:
        return
    names = ", ".join(repr(ids[number]) for number in beyond[:4]) + (", ..." if len(beyond) > 4 else "")
    raise BaseModelError(
        f"its tokenizer has {len(beyond)} ids beyond the base's embedding table",
        where=f"base '{place}'",
        expected=f"ids below {rows:,}",
        got=f"up to {beyond[-1]:,} ({names})",
        remedy="Tokens were added to the tokenizer and not to the model, or the tokenizer is of another model. In "
        "Python: model.resize_token_embeddings(len(tokenizer)), then model.save_pretrained(folder). New rows start "
        "from random values.",
    )


def describe_case(tokenizer: Any) -> str | None:
    """Return what is odd about a tokenizer's treatment of capitals, in a sentence; None if nothing is.

    Args:
        tokenizer: As `load_tokenizer` gives it.
    """
    if _lowers(tokenizer):
        words = _words_of(tokenizer)
        capitals = sum(any(letter.isupper() for letter in word) for word in words)
        if capitals > _MANY_CAPITALS * len(words):
            return (
                f"its tokenizer makes all letters small, but {capitals:,} of its {len(words):,} pieces have capitals: "
                'these are never used. A base of cased text needs "do_lower_case": false in its tokenizer files'
            )
        return None
    unknown = tokenizer.unk_token_id
    small, large = (
        tokenizer.backend_tokenizer.encode(text).ids.count(unknown)
        for text in ("the city in which", "THE City In Which")
    )
    if unknown is None or large <= small:
        return None
    return (
        "its tokenizer keeps capitals, but its vocabulary lacks words with capitals: they are read as unknown. A base "
        'of uncased text needs "do_lower_case": true in its tokenizer files'
    )


def _lowers(tokenizer: Any) -> bool:
    normalizer = tokenizer.backend_tokenizer.normalizer
    return normalizer is not None and normalizer.normalize_str("CAPITAL") == "capital"


def _words_of(tokenizer: Any) -> list[str]:
    """Return the pieces of two letters or more, without special and added tokens and the signs of word parts.

    Of byte pairs only the ASCII letters count: other bytes are written as letters that mean nothing.
    """
    added = {token.content for token in tokenizer.added_tokens_decoder.values()} | set(tokenizer.all_special_tokens)
    in_bytes = "ByteLevel" in str(tokenizer.backend_tokenizer.pre_tokenizer)
    words = []
    for piece in tokenizer.get_vocab():
        if piece in added or piece[:1] in "[<":
            continue
        word = piece.removeprefix("##").strip("▁Ġ")
        word = "".join(letter for letter in word if letter in string.ascii_letters) if in_bytes else word
        if len(word) > 1 and any(letter.isalpha() for letter in word):
            words.append(word)
    return words
