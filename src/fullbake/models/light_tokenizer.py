"""A bundle's tokenizer by the `tokenizers` library alone, without transformers.

transformers builds a tokenizer of tokenizer.json and tokenizer_config.json; the settings of the second may change what
the first says. Here only a bundle is read whose settings ask for nothing that tokenizer.json does not have already. Any
other one is refused, and needs the engine of torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer
from tokenizers.normalizers import BertNormalizer

from fullbake.core.errors import BundleError
from fullbake.core.json_files import match_shape
from fullbake.models import base_files
from fullbake.models.tokenizer import disable_padding_and_truncation
from fullbake.models.tokenizer_safety import explain_failure

_SETTINGS_FILE: Final = "tokenizer_config.json"

_CLASSES: Final = frozenset(
    name + ending
    for name in (
        *("Albert", "Bert", "Camembert", "Deberta", "DebertaV2", "DistilBert", "Electra", "MPNet", "Roberta"),
        *("XLMRoberta", "PreTrained"),
    )
    for ending in ("Tokenizer", "TokenizerFast")
) | {"TokenizersBackend"}
"""Tokenizer classes of the families that are tried. What transformers makes of one of these has the ids of
tokenizer.json, or is replaced by it (`tokenizer_file.hold_to_file`)."""


@dataclass(frozen=True)
class LightTokenizer:
    """What `encoding.tokenize` and an engine read of a tokenizer."""

    backend_tokenizer: Tokenizer
    model_input_names: tuple[str, ...]
    pad_token_id: int
    name_or_path: str
    """The folder, for errors."""


def read_light_tokenizer(folder: Path) -> LightTokenizer:
    """Return a bundle's tokenizer.

    Args:
        folder: The bundle; its tokenizer.json passed `tokenizer_safety`.

    Raises:
        BundleError: transformers might make another tokenizer of its settings.
    """
    read = base_files.read_settings(folder / _SETTINGS_FILE, _SETTINGS_FILE)
    settings = match_shape(base_files.TokenizerSettings, read)
    with explain_failure(folder):
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    fault = _find_fault(settings, backend)
    pad_id = backend.token_to_id(_content(settings.pad_token) or "")
    if fault is not None or pad_id is None or settings.model_input_names is None:
        raise BundleError(
            "its tokenizer can be read by transformers alone",
            where=str(folder / _SETTINGS_FILE),
            expected="settings that tokenizer.json has too",
            got=fault or "no padding token",
            remedy="Use --engine torch (engine='torch'), which needs: pip install 'fullbake[train]'.",
        )
    tokenizer = LightTokenizer(backend, tuple(settings.model_input_names), pad_id, str(folder))
    disable_padding_and_truncation(tokenizer)
    return tokenizer


def _find_fault(settings: base_files.TokenizerSettings, backend: Tokenizer) -> str | None:
    """Say which setting transformers might act on; None if there is none."""
    for number, token in (settings.added_tokens_decoder or {}).items():
        if backend.token_to_id(_content(token) or "") != int(number):
            return f"a token with the id {number} that has another one in tokenizer.json"
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    for named in settings.named_tokens():
        if _content(named) not in added:
            return f"a special token {str(_content(named))[:40]!r} that is none in tokenizer.json"
    if settings.tokenizer_class not in _CLASSES:
        return f"the class {str(settings.tokenizer_class)[:60]}"
    if settings.padding_side is None or settings.truncation_side is None or settings.model_input_names is None:
        return "no padding_side, truncation_side or model_input_names, which every bundle has"
    return _fault_of_normalizer(settings, backend.normalizer)


def _fault_of_normalizer(settings: base_files.TokenizerSettings, normalizer: Any) -> str | None:
    """Say which part of BERT's normalizer the settings ask to be otherwise; BERT's class builds it of them."""
    if not isinstance(normalizer, BertNormalizer):
        return None
    asked = settings.do_lower_case is not False, settings.tokenize_chinese_chars is not False, settings.strip_accents
    found = normalizer.lowercase, normalizer.handle_chinese_chars, normalizer.strip_accents
    return None if asked == found else f"do_lower_case, tokenize_chinese_chars and strip_accents of {asked}"


def _content(token: base_files.TokenWord) -> str | None:
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else None
