"""The trial of a tokenizer.json passes those that encoders have, and says what is wrong with others."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.bases import FAMILIES
from tokenizers import Tokenizer

from fullbake.models.pretrained import resolve_base
from fullbake.models.tokenizer_trial import find_static_fault, measure_tokenizer, try_tokenizer

Bases = Callable[..., Path]


@pytest.fixture
def content(bases: Bases) -> dict[str, Any]:
    """The content of a BERT's tokenizer.json, which a test may change."""
    found: dict[str, Any] = json.loads((bases("bert") / "tokenizer.json").read_bytes())
    return copy.deepcopy(found)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokenizers_of_all_families_pass(family: str, bases: Bases) -> None:
    file = bases(family) / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    assert try_tokenizer(str(file)) == {
        "highest_id": max(tokenizer.get_vocab().values()),
        "tokens": tokenizer.get_vocab_size(),
    }


def test_the_packaged_tokenizer_passes() -> None:
    """It is a real one, and its file switches padding and truncation on."""
    found = try_tokenizer(str(Path(resolve_base("demo")) / "tokenizer.json"))
    assert found == {"highest_id": 30_521, "tokens": 30_522}


def test_ids_that_only_the_post_processor_gives_are_counted(content: dict[str, Any]) -> None:
    content["post_processor"]["special_tokens"]["[SEP]"]["ids"] = [70_000]
    assert measure_tokenizer(Tokenizer.from_str(json.dumps(content)))["highest_id"] == 70_000


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        (("model",), None, "no object 'model'"),
        (("model", "max_input_chars_per_word"), 1_001, "max_input_chars_per_word is 1001"),
        (("model", "dropout"), 0.1, "would depend on chance"),
        (("padding",), {"strategy": {"Fixed": 10**9}}, "pads texts to 1000000000 tokens"),
        (("padding",), {"strategy": "BatchLongest", "pad_to_multiple_of": 10**9}, "pads texts to"),
        (("normalizer",), {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 20_000}, "entries beside"),
        (("pre_tokenizer",), {"pattern": {"Regex": "a" * 20_001}}, "pre_tokenizer.pattern.Regex is a text of 20,001"),
    ],
)
def test_what_costs_too_much_is_named_before_the_library_reads_it(
    keys: tuple[str, ...], value: object, words: str, content: dict[str, Any]
) -> None:
    holder = content
    for key in keys[:-1]:
        holder = holder[key]
    holder[keys[-1]] = value
    assert words in str(find_static_fault(content))


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("model", "max_input_chars_per_word"), 1_000),
        (("padding",), {"strategy": {"Fixed": 512}, "direction": "Right", "pad_to_multiple_of": 8}),
        (("normalizer",), {"type": "Precompiled", "precompiled_charsmap": "A" * 400_000}),
        (("notes",), {"made by": "somebody", "steps": 10**12}),
        (("added_tokens",), [{"id": number, "content": f"<{number}>"} for number in range(30_000)]),
    ],
)
def test_what_real_files_have_is_no_fault(keys: tuple[str, ...], value: object, content: dict[str, Any]) -> None:
    holder = content
    for key in keys[:-1]:
        holder = holder[key]
    holder[keys[-1]] = value
    assert find_static_fault(content) is None


@pytest.mark.parametrize("whole", [None, [], "x", 7, {"model": 7}])
def test_a_file_that_is_no_tokenizer_has_a_fault(whole: object) -> None:
    assert find_static_fault(whole) == "it holds no object 'model'"


def test_a_text_that_grows_without_bound_is_named(content: dict[str, Any], tmp_path: Path) -> None:
    content["normalizer"] = {"type": "Replace", "pattern": {"String": "o"}, "content": "o a" * 6_000}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert "tokens of a text of" in try_tokenizer(str(tmp_path / "tokenizer.json"))["fault"]
