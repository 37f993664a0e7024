"""Check the JSON files of a base or a bundle before transformers reads them: kind and size of file, shape, limits.

transformers builds what config.json asks for: a billion layers would be built one by one, a billion labels named. So
numbers have limits, each many times larger than in any public encoder. What a family does with its own fields is left
to it; only what would keep a machine busy or fill its memory is refused here. No model class is imported, so that the
light install can check the same.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from fullbake.core.errors import BaseModelError
from fullbake.core.json_files import MOST_BYTES, Shape, ShapeFault, check_plain_file, match_shape, read_checked_json

LIMITS: Final[tuple[tuple[str, int], ...]] = (
    (r"(^|_)layers?$|(^|_)(groups?|group_num|blocks?|stages?|depth|langs|experts|hashes)$", 1_000),
    (r"heads$", 10_000),
    (r"labels$", 1_000_000),
    (r"(^|_)positions?(_embeddings|_buckets)?$|(^|_)seq_len$|(^|_)ctx$", 2_000_000),
    (r"(^|_)(vocab|vocab_size|n_words|buckets)$", 100_000_000),
    (r"(^|_)(hidden|intermediate|embedding|head|window|chunk|kernel|block|ffn)_size$", 10_000_000),
    (r"^(dim|hidden_dim|width|n_embd|n_inner|d_model|d_ff|d_inner|d_embed|d_head)$", 10_000_000),
)
"""Pattern in the name of a field of config.json -> its largest number; the first pattern that fits counts. Public
encoders have at most 48 layers, 64 heads, 1,100,000 pieces, 131,072 positions and a width of 5,120. Fields that count
other things, such as rows or steps of a training that somebody noted, are left alone."""

LARGEST_NUMBER: Final = 2**63 - 1
"""Largest whole number of any other field."""

LONGEST_LIST: Final = 1_000_000

MOST_MODULES: Final = 100
"""Parts that a sentence-transformers folder may have. Usual ones have two to four."""

LENGTH_FILES: Final = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Files of sentence-transformers with the length of a base: today that of `bert` whatever the family; older versions
wrote the others."""

_VOCABULARY_BYTES: Final = 1_000_000_000
"""Largest file with a vocabulary, such as vocab.txt or a SentencePiece model."""

_OWN_NAMES: Final = re.compile(
    r"(config|generation_config|adapter_config|tokenizer\w*|special_tokens_map|added_tokens|vocab|modules|"
    r"sentence_\w+_config|config_sentence_transformers|model\.safetensors\.index)\.json|(vocab|merges|dict)\.txt|"
    r".+\.(safetensors|model|jinja)"
)
"""Names of the files that a base consists of. Others, such as somebody's rows or notes, are not opened."""

_POINTER: Final = b"version https://git-lfs"
"""How the text starts that Git leaves in place of a large file that it did not fetch."""

Count = Annotated[int, Field(ge=0, le=100_000_000)]
TokenWord = str | dict[str, Any] | None
"""A special token: its text, or an object with its settings."""


class FileFacts(Shape):
    """What fullbake.json records of a file."""

    size: Annotated[int, Field(ge=0, lt=2**53)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Objective(Shape):
    objective: str


class _Corpus(Shape):
    tokens: Annotated[int, Field(ge=0, lt=2**53)]


class _StartLosses(Shape):
    general_mlm_loss: float | None = None


class FurtherPretraining(Shape):
    """What is known of how a base was further pretrained; a bundle keeps it."""

    base: str
    further_pretraining: _Objective
    steps: Annotated[int, Field(ge=0, lt=2**53)]
    corpus: _Corpus
    start: _StartLosses
    forgotten: float | None
    transductive: bool


class BaseManifest(FurtherPretraining):
    """fullbake.json of a base that fullbake made."""

    files: dict[str, FileFacts] | None = None


class TokenizerSettings(Shape):
    """tokenizer_config.json, as far as it is read."""

    tokenizer_class: str | None = None
    model_input_names: list[str] | None = None
    model_max_length: int | float | None = None
    max_len: int | float | None = None
    """The name of `model_max_length` in old files."""

    added_tokens_decoder: dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], TokenWord] | None = None
    padding_side: Literal["left", "right"] | None = None
    truncation_side: Literal["left", "right"] | None = None
    do_lower_case: bool | None = None
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool | None = None
    clean_text: bool | None = None
    add_prefix_space: bool | None = None
    trim_offsets: bool | None = None
    pad_token: TokenWord = None
    unk_token: TokenWord = None
    cls_token: TokenWord = None
    sep_token: TokenWord = None
    mask_token: TokenWord = None
    bos_token: TokenWord = None
    eos_token: TokenWord = None
    additional_special_tokens: list[TokenWord] | None = None
    extra_special_tokens: list[TokenWord] | dict[str, TokenWord] | None = None

    def named_tokens(self) -> list[TokenWord]:
        """Return the special tokens that are named, each as a text or with its settings."""
        single = (self.pad_token, self.unk_token, self.cls_token, self.sep_token, self.mask_token)
        extra = self.extra_special_tokens or ()
        more = extra.values() if isinstance(extra, dict) else extra
        tokens = (*single, self.bos_token, self.eos_token, *(self.additional_special_tokens or ()), *more)
        return [token for token in tokens if token is not None]


class _SpecialTokens(Shape):
    """special_tokens_map.json, under the key `tokens`."""

    tokens: dict[str, TokenWord | list[Any]]


class _AddedTokens(Shape):
    """added_tokens.json, under the key `tokens`."""

    tokens: dict[str, Count]


class _Module(Shape):
    type: str
    path: str = ""


class _Modules(Shape):
    """modules.json of a sentence-transformers folder, under the key `modules`."""

    modules: Annotated[list[_Module], Field(max_length=MOST_MODULES)]


class _PoolingSettings(Shape):
    """config.json of a sentence-transformers folder's pooling."""

    word_embedding_dimension: Count | None = None
    embedding_dimension: Count | None = None
    pooling_mode: str | Annotated[list[str], Field(min_length=1)] | None = None


class _ShardIndex(Shape):
    """model.safetensors.index.json."""

    metadata: dict[str, Any]
    weight_map: Annotated[dict[str, str], Field(min_length=1, max_length=LONGEST_LIST)]


class _TokenizerArguments(Shape):
    """What sentence-transformers passes to a tokenizer."""

    model_max_length: Annotated[int | float, Field(gt=0)] | None = None


class _LengthSettings(Shape):
    """sentence_bert_config.json, and what older versions of sentence-transformers wrote for other families."""

    max_seq_length: Annotated[Count, Field(gt=0)] | None = None
    do_lower_case: bool | None = None
    processor_kwargs: _TokenizerArguments | None = None
    tokenizer_args: _TokenizerArguments | None = None


class _PromptSettings(Shape):
    """config_sentence_transformers.json."""

    prompts: dict[str, str | None] | None = None
    default_prompt_name: str | None = None


_SHAPES: Final[Mapping[str, tuple[type[Shape], str | None]]] = {
    "tokenizer_config.json": (TokenizerSettings, None),
    "special_tokens_map.json": (_SpecialTokens, "tokens"),
    "added_tokens.json": (_AddedTokens, "tokens"),
    "modules.json": (_Modules, "modules"),
    "model.safetensors.index.json": (_ShardIndex, None),
    **dict.fromkeys(LENGTH_FILES, (_LengthSettings, None)),
    "config_sentence_transformers.json": (_PromptSettings, None),
}
"""Name of a file in a base -> its shape, and the key under which the shape holds the whole file."""


def check_config(config: Any) -> None:
    """Check the content of a config.json against LIMITS, whichever family it is of.

    Raises:
        ShapeFault: It is no object, or a number or a list is too large.
    """
    if not isinstance(config, dict):
        raise ShapeFault("", "an object", type(config).__name__)
    for holder in (config, config.get("encoder")):
        if isinstance(holder, dict) and not isinstance(holder.get("model_type"), str | None):
            raise ShapeFault("model_type", "a word", repr(holder["model_type"])[:40])
    for keys, value in _walk(config):
        where = ".".join(keys)[-120:]
        if isinstance(value, list | dict) and len(value) > LONGEST_LIST:
            raise ShapeFault(where, f"at most {LONGEST_LIST:,} entries", f"{len(value):,}")
        if isinstance(value, int) and not isinstance(value, bool):
            limit = _limit_of(keys[-1])
            if abs(value) > limit:
                raise ShapeFault(where, f"a number of at most {limit:,}", str(value)[:40])


def check_config_of(place: Path | str, config: Any) -> None:
    """Raise BaseModelError if the config.json of a base is not within LIMITS. It is `check_config` for a hub id too.

    Args:
        place: The base, for the error.
        config: The content of its config.json.
    """
    try:
        check_config(config)
    except ShapeFault as fault:
        raise _unusable(Path(place) / "config.json", fault) from fault


def _limit_of(field: str) -> int:
    return next((limit for pattern, limit in LIMITS if re.search(pattern, field)), LARGEST_NUMBER)


def _walk(config: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every value within an object with the names that lead to it. An item of a list has the name of its list."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), config)]
    while waiting:
        keys, value = waiting.pop()
        yield keys, value
        if isinstance(value, dict):
            # Names of labels are no names of fields: a label "num_heads" must not be taken for one.
            own = keys[-1:] in (("id2label",), ("label2id",))
            waiting.extend(((*keys, "" if own else str(name)), inner) for name, inner in value.items())
        elif isinstance(value, list):
            waiting.extend((keys, inner) for inner in value)


def check_settings(name: str, content: Any) -> None:
    """Check the content of one JSON file of a base.

    Args:
        name: Path of the file within the base, such as `1_Pooling/config.json`.
        content: What it holds.

    Raises:
        ShapeFault: A value is not what is read there. A file whose shape is not known here passes.
    """
    if name == "config.json":
        check_config(content)
    elif name in _SHAPES:
        shape, key = _SHAPES[name]
        match_shape(shape, content if key is None else {key: content})
    elif name.endswith("/config.json"):
        match_shape(_PoolingSettings, content)


def read_settings(path: Path, name: str) -> Any:
    """Read one JSON file of a base and check its shape.

    Args:
        path: The file.
        name: Its path within the base.

    Raises:
        BaseModelError: It cannot be read, or holds something else than such a file does.
    """
    try:
        # Some public configs have infinite numbers: transformers wrote them as Python does.
        content = read_checked_json(path, finite=False)
        _check_words(content)
        check_settings(name, content)
    except ShapeFault as fault:
        raise _unusable(path, fault) from fault
    except (OSError, ValueError) as error:
        raise BaseModelError("no valid JSON", where=str(path), got=str(error)[:300], remedy=_REMEDY) from error
    return content


def _check_words(content: Any) -> None:
    """Raise ShapeFault for half of a surrogate pair: neither transformers nor a tokenizer can write it again."""
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ShapeFault("", "Unicode text", "half of a surrogate pair") from error


_checked: dict[Path, list[tuple[str, int, int]]] = {}
"""Folder -> names, sizes and times of its files when they were last found right, in this process."""


def check_base_files(folder: Path) -> None:
    """Check the kind and size of the files that transformers may open in a folder, and the shape of its JSON.

    Args:
        folder: A base or a bundle.

    Raises:
        BaseModelError: Names the file and what is wrong with it.
    """
    seen = []
    for path in sorted(folder.iterdir()):
        if _OWN_NAMES.fullmatch(path.name):
            _check_file(path)
            status = path.stat()
            seen.append((path.name, status.st_size, status.st_mtime_ns))
    if _checked.get(folder.absolute()) == seen:
        return
    for name in ("config.json", *_SHAPES):
        if (folder / name).is_file():
            read_settings(folder / name, name)
    _checked[folder.absolute()] = seen


def _check_file(path: Path) -> None:
    """Raise BaseModelError for what is no plain file, too large for its kind, or a pointer to a file elsewhere."""
    most = MOST_BYTES if path.suffix == ".json" else _VOCABULARY_BYTES
    if path.suffix == ".safetensors":
        most = LARGEST_NUMBER
    elif path.name in ("tokenizer.json", "vocab.json"):
        most = _VOCABULARY_BYTES
    try:
        check_plain_file(path, most)
    except ShapeFault as fault:
        raise _unusable(path, fault) from fault
    except OSError as error:
        raise BaseModelError(
            "the file cannot be read",
            where=str(path),
            expected="a plain file, or a link to one",
            got=error.strerror,
            remedy=_REMEDY,
        ) from error
    if path.stat().st_size < 1_000:
        with path.open("rb") as file:
            if file.read(len(_POINTER)) == _POINTER:
                raise BaseModelError(
                    "the file was not fetched: Git left a pointer to it in its place",
                    where=str(path),
                    remedy="Run `git lfs pull` in the folder, or fetch the base again.",
                )


_REMEDY: Final = "Fetch the base again, or restore the file from its source."


def _unusable(path: Path, fault: ShapeFault) -> BaseModelError:
    return BaseModelError(
        f"{path.name} cannot be used",
        where=f"{path}, {fault.where}" if fault.where else str(path),
        expected=fault.expected,
        got=fault.got,
        remedy=_REMEDY,
    )
