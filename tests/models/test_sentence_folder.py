"""What the settings of a sentence-transformers folder mean; `test_sentence_transformers_extras` trains on one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fullbake.core import storage
from fullbake.core.errors import BaseModelError
from fullbake.models import sentence_folder
from fullbake.models.sentence_folder import (
    Module,
    SentenceFolder,
    Use,
    describe_use,
    read_sentence_folder,
)

ST5 = "sentence_transformers.base.modules."
POOLED = {
    "modules.json": [{"path": "1_Pooling", "type": ST5 + "pooling.Pooling"}],
    "1_Pooling/config.json": {"pooling_mode": "mean"},
}


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        storage.write_json(folder / name, content)
    return folder


def test_other_bases_say_nothing(bases: Callable[..., Path]) -> None:
    assert read_sentence_folder(bases("bert")) == SentenceFolder()


def test_demo_names_its_length_and_normalizes() -> None:
    found = read_sentence_folder("demo")
    assert (found.max_length, found.prompt, found.pooling, found.layers) == (256, "", "mean", ())
    assert [module.kind for module in found.modules] == ["Transformer", "Pooling", "Normalize"]


def make_folder(folder: Path, *kinds: str, pooling: Any = "mean") -> SentenceFolder:
    """Write a folder with modules of these kinds, each in a subfolder of its number and kind, and read it."""
    types = [kind if "." in kind else ST5 + kind for kind in kinds]
    paths = [f"{number}_{kind}" if number else "" for number, kind in enumerate(kinds)]
    files: dict[str, Any] = {
        "modules.json": [{"path": path, "type": kind} for path, kind in zip(paths, types, strict=True)]
    }
    files |= {f"{path}/config.json": {"pooling_mode": pooling} for path in paths if path.endswith("Pooling")}
    return read_sentence_folder(write(folder, files))


@pytest.mark.parametrize(
    ("kinds", "applied", "obstacle"),
    [
        (["Transformer", "Pooling", "Normalize"], [], None),
        (["Transformer", "Pooling", "Dense", "Dropout", "Normalize"], ["Dense"], None),
        (["Transformer", "Pooling", "Normalize", "Dense", "LayerNorm"], ["Normalize", "Dense", "LayerNorm"], None),
        (["Transformer", "Pooling", "Dense", "Dense", "Router"], ["Dense", "Dense"], None),
        (["Transformer", "Dense", "Pooling", "Dense"], [], "Dense"),
        (["Transformer", "LSTM", "Pooling", "Dense"], [], "LSTM"),
        (["Transformer", "Pooling", "Router", "Dense"], [], "Router"),
        (["Transformer", "Pooling", "mine.Dense"], [], None),
        (["mine.Transformer", "Pooling", "Dense"], [], "mine.Transformer"),
        (["Transformer", "Dense"], [], None),
    ],
    ids=str,
)
def test_layers_are_applied_where_they_read_the_pooled_vector_and_else_left_out(
    kinds: list[str], applied: list[str], obstacle: str | None, tmp_path: Path
) -> None:
    found = make_folder(tmp_path, *kinds)
    assert [module.kind for module in found.projection] == applied
    assert (found.obstacle is None) if obstacle is None else (obstacle in str(found.obstacle))
    said = describe_use(found, pooling="mean", prompt="", max_length=32, limit=64, keeps_case=True)
    for kind in {*kinds[1:], *(kind for kind in kinds[:1] if "." in kind)} - {"Pooling"}:
        assert f"{kind}" in " ".join([*said.applied, *said.left_out])


def test_a_dense_layer_without_pooling_is_left_out(tmp_path: Path) -> None:
    found = make_folder(tmp_path, "Transformer", "Dense")
    said = describe_use(found, pooling="cls", prompt="", max_length=32, limit=64, keeps_case=True)
    assert said.left_out == ("its Dense",)


@pytest.mark.parametrize(
    ("settings", "poolings", "pooling"),
    [
        ({"pooling_mode": "mean"}, ("mean",), "mean"),
        ({"pooling_mode": ["max"]}, ("max",), "max"),
        ({"pooling_mode": ["mean", "cls"]}, ("mean", "cls"), "cls+mean"),
        ({"pooling_mode": ["mean", "max"]}, ("mean", "max"), None),
        ({"pooling_mode": "lasttoken", "pooling_mode_cls_token": True}, ("lasttoken",), None),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, ("cls", "mean"), "cls+mean"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, ("mean_sqrt_len_tokens",), None),
        ({"pooling_mode_max_tokens": True, "include_prompt": True, "other": True}, ("max",), "max"),
        ({"pooling_mode_cls_token": False, "word_embedding_dimension": 8}, ("mean",), "mean"),
    ],
    ids=str,
)
def test_pooling_is_read_as_sentence_transformers_reads_it(
    settings: dict[str, Any], poolings: tuple[str, ...], pooling: str | None, tmp_path: Path
) -> None:
    found = read_sentence_folder(write(tmp_path, POOLED | {"1_Pooling/config.json": settings}))
    assert (found.poolings, found.pooling) == (poolings, pooling)


def test_a_dense_layer_that_reads_the_poolings_in_another_order_is_left_out(tmp_path: Path) -> None:
    kinds = ["Transformer", "Pooling", "Dense"]
    assert make_folder(tmp_path / "one", *kinds, pooling=["cls", "mean"]).projection != ()
    found = make_folder(tmp_path / "two", *kinds, pooling=["mean", "cls"])
    assert (found.pooling, found.projection) == ("cls+mean", ())
    said = describe_use(found, pooling="cls+mean", prompt="", max_length=32, limit=64, keeps_case=True)
    assert said.left_out == ("its Dense layer, which reads its own pooling, mean and cls",)


@pytest.mark.parametrize(
    ("files", "length"),
    [
        ({"sentence_bert_config.json": {"max_seq_length": 16}, "tokenizer_config.json": {"model_max_length": 8}}, 16),
        ({"sentence_bert_config.json": {"transformer_task": "x"}, "tokenizer_config.json": {"model_max_length": 8}}, 8),
        ({"sentence_bert_config.json": {"max_seq_length": None}, "tokenizer_config.json": {"max_len": 8}}, 8),
        ({"sentence_bert_config.json": {"tokenizer_args": {"model_max_length": 7}, "max_seq_length": 9}}, 7),
        ({"tokenizer_config.json": {"model_max_length": 1e30}}, 10**30 + 19884624838656),
        ({"tokenizer_config.json": {}}, None),
        ({}, None),
    ],
    ids=str,
)
def test_length_is_in_the_folders_settings_or_in_the_tokenizers(
    files: dict[str, Any], length: int | None, tmp_path: Path
) -> None:
    assert read_sentence_folder(write(tmp_path, POOLED | files)).max_length == length


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"modules.json": {}}, "a list"),
        ({"modules.json": ["Pooling"]}, "an object"),
        ({"modules.json": [{"path": 3, "type": "Dense"}]}, "a text"),
        ({"modules.json": [{"path": "../elsewhere", "type": "Dense"}]}, "path of a subfolder"),
        ({"modules.json": [{"path": "/etc", "type": "Dense"}]}, "path of a subfolder"),
        ({"modules.json": [{"path": ""}]}, "modules.0.type: .*\\n.*an entry; got none"),
        ({"modules.json": [{"path": "0_Transformer", "type": ST5 + "Transformer"}]}, "SentenceTransformer"),
        ({"modules.json": [{"path": "1_Pooling", "type": ST5 + "Pooling"}]}, "names the pooling"),
        (POOLED | {"1_Pooling/config.json": {"pooling_mode": 3}}, "a text"),
        (POOLED | {"1_Pooling/config.json": {"pooling_mode": [3]}}, "a text"),
        (POOLED | {"1_Pooling/config.json": {"pooling_mode": []}}, "a list"),
        (POOLED | {"tokenizer_config.json": {"model_max_length": "long"}}, "tokenizer_config.json"),
        (POOLED | {"config_sentence_transformers.json": []}, "an object"),
        (POOLED | {"config_sentence_transformers.json": {"default_prompt_name": "query"}}, "default prompt 'query'"),
        (POOLED | {"config_sentence_transformers.json": {"default_prompt_name": "q", "prompts": {"q": 1}}}, "a text"),
        (POOLED | {"sentence_bert_config.json": {"max_seq_length": "long"}}, "a whole number"),
        (POOLED | {"sentence_roberta_config.json": {"max_seq_length": "long"}}, "sentence_roberta_config.json"),
    ],
    ids=str,
)
def test_settings_of_another_shape_are_refused(files: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=words):
        read_sentence_folder(write(tmp_path, files))


def test_prompt_without_a_default_name_is_none(tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": None}
    files = {"config_sentence_transformers.json": prompts, "sentence_roberta_config.json": {"max_seq_length": 2}}
    found = read_sentence_folder(write(tmp_path, POOLED | files))
    assert (found.prompt, found.max_length) == ("", 4)


def test_modules_may_be_in_nested_subfolders(tmp_path: Path) -> None:
    modules = [{"path": "parts/1_Pooling", "type": ST5 + "Pooling"}]
    found = read_sentence_folder(
        write(tmp_path, {"modules.json": modules, "parts/1_Pooling/config.json": {"pooling_mode": "max"}})
    )
    assert (found.modules[0].path, found.pooling) == ("parts/1_Pooling", "max")


def test_empty_list_of_modules_is_no_sentence_folder(tmp_path: Path) -> None:
    assert read_sentence_folder(write(tmp_path, {"modules.json": []})) == SentenceFolder()


def use(folder: SentenceFolder, **fields: Any) -> Use:
    return describe_use(
        folder, **({"pooling": "cls", "prompt": "", "max_length": 32, "limit": 64, "keeps_case": True} | fields)
    )


def test_use_says_what_is_left_out() -> None:
    folder = SentenceFolder((Module("Dropout", ""),), ("mean",), "query: ", 16, pools_prompt=False, lowers=True)
    said = use(folder, prompt="query: ")
    assert len(said.applied) == 1
    parts = ("pooling, mean: the head reads cls", "16 tokens", "include_prompt", "do_lower_case", "Dropout")
    assert [[words for words in parts if words in part] for part in said.left_out] == [[part] for part in parts]
    assert use(SentenceFolder(), max_length=8).sentences() == []


def test_use_of_a_standard_head_names_the_pooling_that_it_leaves_out() -> None:
    assert use(SentenceFolder((), ("weightedmean",)), pooling=None).left_out == (
        "its pooling, weightedmean: the head reads that of its architecture",
    )


@pytest.mark.parametrize(("length", "applied", "left_out"), [(32, 1, 0), (16, 0, 1), (64, 0, 0), (9999, 0, 0)])
def test_use_names_the_length_where_it_is_less_than_the_encoder_takes(length: int, applied: int, left_out: int) -> None:
    said = use(SentenceFolder((), (), "", length))
    assert (len(said.applied), len(said.left_out)) == (applied, left_out)


class Hub:
    """Stands for the hub's files of one base, and counts what is asked for."""

    def __init__(self, folder: Path, known: bool) -> None:
        self.folder, self.known = folder, known
        self.asked: list[str] = []

    def find(self, place: str, name: str) -> Any:
        self.asked.append(name)
        return storage.read_json(self.folder / name) if (self.folder / name).is_file() else None

    def look_up(self, place: str, name: str) -> object | None:
        """Return a path; or else what stands for a file that is known to be missing, or None if that is not known."""
        return str(self.folder / name) if (self.folder / name).is_file() else object() if self.known else None


def make_hub(monkeypatch: pytest.MonkeyPatch, folder: Path, files: dict[str, Any], *, known: bool) -> Hub:
    hub = Hub(write(folder, files), known)
    monkeypatch.setattr(sentence_folder, "read_json_settings", hub.find)
    monkeypatch.setattr(sentence_folder, "try_to_load_from_cache", hub.look_up)
    sentence_folder._read_hub.cache_clear()
    return hub


def test_settings_of_a_hub_base_are_asked_for_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = make_hub(monkeypatch, tmp_path, POOLED, known=True)
    assert read_sentence_folder("some/base").pooling == "mean"
    asked = len(hub.asked)
    assert read_sentence_folder("some/base").pooling == "mean"
    assert len(hub.asked) == asked == len(set(hub.asked))


@pytest.mark.parametrize(
    ("files", "unknown"),
    [
        ({}, "modules.json"),
        (POOLED, "config_sentence_transformers.json and sentence_bert_config.json"),
        (POOLED | {"sentence_roberta_config.json": {"max_seq_length": 8}}, "config_sentence_transformers.json"),
        (POOLED | {"sentence_bert_config.json": {}, "config_sentence_transformers.json": {}}, None),
    ],
    ids=str,
)
def test_settings_that_a_hub_cannot_be_asked_for_are_warned_of_once(
    files: dict[str, Any],
    unknown: str | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_hub(monkeypatch, tmp_path, files, known=False)
    for _ in range(2):
        read_sentence_folder("some/base")
    assert [record.getMessage().partition("asked for ")[2].partition(",")[0] for record in caplog.records] == (
        [unknown] if unknown else []
    )
    caplog.clear()
    make_hub(monkeypatch, tmp_path, files, known=True)
    read_sentence_folder("some/base")
    assert caplog.text == ""
