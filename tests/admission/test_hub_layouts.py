"""Repositories as the hub has them are accepted: what they hold beside a base is no reason to refuse them."""

from pathlib import Path

import pytest
from helpers.hub_layouts import HUB_LAYOUTS, make_hub_layout
from tokenizers import Tokenizer

from fullbake.models.admission import examine
from fullbake.models.tokenizer import load_tokenizer
from fullbake.models.tokenizer_file import PROBE_TEXTS


@pytest.mark.parametrize("name", HUB_LAYOUTS)
def test_repository_is_accepted(name: str, tmp_path: Path) -> None:
    folder = make_hub_layout(name, tmp_path / "base")
    found = examine(folder, cache_dir=tmp_path / "cache")
    assert [str(error) for error in found.errors] == []
    assert found.facts["max_length"] == 512
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    own.no_padding()
    own.no_truncation()
    ids = [encoding.ids for encoding in load_tokenizer(folder).backend_tokenizer.encode_batch(list(PROBE_TEXTS))]
    assert ids == [encoding.ids for encoding in own.encode_batch(list(PROBE_TEXTS))]
