"""Measure forgetting: how well an encoder still predicts masked words of general text.

A base that came with a masked-LM head is measured with it. For a base without one (`demo`), a head is trained once on
the untouched, frozen encoder and cached. The same head, with its word embeddings, is then put on each encoder that was
made from that base. Its loss alone says little, because the head saw few texts; but a rise of the loss can only come
from the encoder. The trade-off: forgetting is measured on masked words only.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast

from fullbake.config.sections import Dialect, TrainingConfig
from fullbake.core import runtime, stopping, storage
from fullbake.core.cache import Cache
from fullbake.core.console import bar, say
from fullbake.core.errors import BaseModelError, DeadlinePassed
from fullbake.core.hashing import fingerprint
from fullbake.data.tables import check_flags
from fullbake.models import network
from fullbake.models.admission import admit
from fullbake.models.batching import Step, inference_plan, training_plan
from fullbake.models.collation import collate
from fullbake.models.encoder import freeze_all, load_encoder
from fullbake.models.encoding import read_special_token_template
from fullbake.models.masked_lm import LanguageModel, load_language_model
from fullbake.models.pretrained import load_config, max_positions
from fullbake.models.tokenizer import load_mlm_tokenizer
from fullbake.pretraining.corpus import read_shard
from fullbake.pretraining.corpus_tokens import CorpusTokenizer
from fullbake.pretraining.data_loader import Phase
from fullbake.pretraining.documents import DocumentSource, document_sources, file_source, first_paragraphs
from fullbake.pretraining.examples import Masking
from fullbake.pretraining.mlm import EvalSet, draw_eval_set, evaluate_masked_lm, standard_masking
from fullbake.training.loop import TrainingWork, fit

PROBE_CHARACTERS: Final = 60_000
"""How much is read of a file of general text: about 13,000 tokens, each masked four times, so 8,000 predictions."""

PROBE_TOKENS: Final = 128
"""Tokens of a row of general text at most."""

TOKEN_BUDGET: Final = 2048
"""Padded tokens of a batch at most."""

HEAD_MASKINGS: Final = 4
"""How often each text is masked from which a head is trained."""

HEAD_EPOCHS: Final = 2

_CACHE_BYTES: Final = 2 * 1024**3
_FORMAT: Final = 2


@dataclass(frozen=True, eq=False)
class ForgettingProbe:
    """Measures encoders that were made from one base."""

    head: LanguageModel
    """The base's language model; its head is used for all encoders."""

    own_head: bool
    """True if the base came with the head, False if it was trained for this purpose."""

    eval_set: EvalSet
    """The general text."""

    def measure(self, encoder: nn.Module) -> dict[str, float]:
        """Return mlm_loss (nats, mean over masked tokens) and mlm_accuracy of an encoder under the head."""
        return evaluate_masked_lm(self.head.with_encoder(encoder), self.eval_set, TOKEN_BUDGET)

    def copy_head_to(self, language_model: LanguageModel) -> None:
        """Overwrite the masked-LM head of another language model of the same base; its encoder stays as it is."""
        _overwrite_head(language_model, _head_parameters(self.head))


def open_probe(
    base: str | Path,
    *,
    text: str | None = None,
    cache_dir: str | Path | None = None,
    language: str = "en",
    dialect: Dialect = Dialect(),  # noqa: B008  (it is frozen)
) -> ForgettingProbe:
    """Return the probe of a base; train a head if the base has none and none is cached.

    Args:
        base: folder, hub id or `demo`.
        text: a file of general text; None uses the bundled English sentences.
        cache_dir: where trained heads are kept.
        language: ISO 639-1 code of the text, for splitting sentences.
        dialect: how the file is written, if it is a table.

    Raises:
        BaseModelError: the base or its tokenizer cannot be used.
        DataError: the file holds no text.
    """
    tokenizer = load_mlm_tokenizer(base)
    loaded = load_language_model(base, pairs=False, seed=0)
    loaded.network.to(runtime.device())
    if not loaded.own_head:
        _load_or_train_head(loaded.network, tokenizer, _general_phase(tokenizer, base), cache_dir)
    eval_set = draw_general_eval_set(base, text, language, dialect)
    return ForgettingProbe(loaded.network, loaded.own_head, eval_set)


def draw_general_eval_set(
    base: str | Path,
    text: str | None = None,
    language: str = "en",
    dialect: Dialect = Dialect(),  # noqa: B008  (it is frozen)
) -> EvalSet:
    """Make the evaluation set of general text for a base's tokenizer.

    Args:
        base: folder, hub id or `demo`.
        text: a file, of which the first PROBE_CHARACTERS are used; None uses the bundled English sentences.
        language: ISO 639-1 code of the text.
        dialect: how the file is written, if it is a table.
    """
    tokenizer = load_mlm_tokenizer(base)
    shard, _ = read_shard(general_text(text, dialect), corpus_tokenizer_of(tokenizer, language))
    parts = [(shard, shard.documents())]
    return draw_eval_set(parts, _general_phase(tokenizer, base), "mlm", make_masking(tokenizer), tokenizer.pad_token_id)


def probe(
    target: str | Path,
    *,
    base: str | Path | None = None,
    text: str | None = None,
    cache_dir: str | Path | None = None,
    dialect: Dialect = Dialect(),  # noqa: B008  (it is frozen)
) -> dict[str, Any]:
    """Measure how well a base, or the encoder of a bundle, predicts general text, before and after its training.

    Args:
        target: folder of a base or of a bundle.
        base: the base that it was made from; None reads it from the folder's fullbake.json.
        text: a file of general text; None uses the bundled English sentences.
        cache_dir: where trained heads are kept.
        dialect: how the file is written, if it is a table.

    Returns:
        base, own_head (True if the base came with a masked-LM head), words (masked tokens), before and after (each with
        mlm_loss in nats and mlm_accuracy), and forgotten (by how much the loss rose).

    Raises:
        BaseModelError: a base cannot be used, or the target was trained from random weights.
        DataError: the file holds no text.
    """
    manifest = storage.read_manifest_file(target) or {}
    if base is None and _started_at_random(manifest):
        raise BaseModelError(
            "it was trained from random weights, so there is nothing that it could have forgotten",
            where=str(target),
            remedy="Name a base to compare it with: --base.",
        )
    origin = _original_base(manifest, target) if base is None else base
    admit(origin, cache_dir=cache_dir)
    opened = open_probe(origin, text=text, cache_dir=cache_dir, dialect=dialect)
    before = opened.measure(opened.head.model.base_model)
    after = before if str(origin) == str(target) else _measure_target(target, opened, is_bundle="recipe" in manifest)
    return {
        "base": str(origin),
        "own_head": opened.own_head,
        "words": opened.eval_set.masked_tokens,
        "before": before,
        "after": after,
        "forgotten": after["mlm_loss"] - before["mlm_loss"],
    }


def _original_base(manifest: Mapping[str, Any], target: str | Path) -> str:
    """Return the base that a folder made by fullbake came from; for any other folder the folder itself."""
    if "recipe" in manifest:
        return str(manifest["recipe"]["base"])
    return str(manifest.get("base") or target)


def _started_at_random(manifest: Mapping[str, Any]) -> bool:
    """Return True if a base, or the base of a bundle, was trained from random weights by fullbake."""
    further = manifest.get("further_pretraining") or (manifest.get("recipe") or {}).get("further_pretraining") or {}
    return bool(further.get("init") == "random")


def _measure_target(target: str | Path, opened: ForgettingProbe, *, is_bundle: bool) -> dict[str, float]:
    if opened.own_head and not is_bundle:
        # further pretraining trained the head too, so the new base is measured with its new head
        whole = load_language_model(target, pairs=False, seed=0).network.to(runtime.device())
        return evaluate_masked_lm(whole, opened.eval_set, TOKEN_BUDGET)
    model: nn.Module = network.load_network(target) if is_bundle else load_encoder(target)
    encoder: nn.Module = getattr(model, "base_model", model)
    return opened.measure(encoder.to(runtime.device()))


# What pretraining and evaluation need of a tokenizer


def corpus_tokenizer_of(tokenizer: PreTrainedTokenizerFast, language: str = "en") -> CorpusTokenizer:
    """Return the tokenizer in the form that tokenizing a corpus needs."""
    return CorpusTokenizer(tokenizer.backend_tokenizer.to_str(), tokenizer.unk_token_id, language)


def make_masking(tokenizer: PreTrainedTokenizerFast, **settings: Any) -> Masking:
    """Return the masking 15%, 80/10/10 of single tokens; `settings` are fields of Masking that replace these.

    Special tokens are never chosen and never drawn.
    """
    ids = np.fromiter(tokenizer.get_vocab().values(), np.int32)
    vocabulary = np.setdiff1d(ids, tokenizer.all_special_ids).astype(np.int32)
    defaults = {"probability": 0.15, "mask": 0.8, "random": 0.1, "whole_words": False}
    assert isinstance(tokenizer.mask_token_id, int)
    return Masking(mask_id=tokenizer.mask_token_id, vocabulary=vocabulary, **(defaults | settings))


def make_phase(tokenizer: PreTrainedTokenizerFast, steps: int, length: int) -> Phase:
    """Return a phase of so many steps on rows of at most `length` tokens, special ones included."""
    single, pair = (read_special_token_template(tokenizer, length, pair=is_pair) for is_pair in (False, True))
    return Phase(steps, single, pair, "token_type_ids" in tokenizer.model_input_names)


def _general_phase(tokenizer: PreTrainedTokenizerFast, base: str | Path) -> Phase:
    return make_phase(tokenizer, 0, min(PROBE_TOKENS, max_positions(load_config(base))))


def general_text(path: str | None = None, dialect: Dialect = Dialect()) -> DocumentSource:  # noqa: B008  (frozen)
    """Return the first PROBE_CHARACTERS of a file; None gives the bundled English sentences."""
    if path is not None:
        (source,) = document_sources([path], text="text", dialect=dialect)
        return first_paragraphs(source, PROBE_CHARACTERS)
    check_flags("general text", dialect, frozenset(), "The bundled sentences are read; name a file by --text.")
    with resources.as_file(resources.files("fullbake") / "resources" / "samples" / "general.txt") as bundled:
        return file_source(bundled)


# A head for a base that has none


def _load_or_train_head(
    language_model: LanguageModel,
    tokenizer: PreTrainedTokenizerFast,
    phase: Phase,
    cache_dir: str | Path | None,
) -> None:
    """Give the model a trained masked-LM head, from the cache if it is there. The encoder stays frozen afterwards.

    Further pretraining starts from this head, so its bits must not depend on which run trained it: it is trained on one
    thread whatever the run has, on the same text whatever the run's language is.
    """
    freeze_all(language_model.model.base_model)
    corpus_tokenizer = corpus_tokenizer_of(tokenizer)
    cache, key = _head_cache(cache_dir), _head_key(language_model, corpus_tokenizer)
    folder = cache.get(key)
    if folder is not None:
        stored = storage.read_tensors(folder / "head.safetensors")
        _overwrite_head(language_model, {name: torch.from_numpy(values) for name, values in stored.items()})
        return
    say("the base has no masked-LM head: training one on its frozen encoder. It takes minutes, and is done once")
    eval_set = _comments_eval_set(corpus_tokenizer, phase, make_masking(tokenizer), tokenizer.pad_token_id)
    with runtime.one_thread():
        history = _train_head(language_model, *_collect_states(language_model, eval_set))
    if "stopped" in history[-1]:
        # half-trained it must not be kept: it would measure every later base
        raise DeadlinePassed("the time was up before the masked-LM head was trained")
    if runtime.rank() == 0:
        arrays = {name: p.detach().cpu().numpy() for name, p in _head_parameters(language_model).items()}
        cache.store(
            key,
            "masked-LM head for a base that has none",
            lambda folder: storage.write_tensors(folder / "head.safetensors", arrays),
        )


def has_trained_head(base: str | Path, cache_dir: str | Path | None = None) -> bool:
    """Return True if the cache holds a masked-LM head that was trained for a base which has none.

    Args:
        base: folder, hub id or `demo`.
        cache_dir: where trained heads are kept.
    """
    loaded = load_language_model(base, pairs=False, seed=0)
    key = _head_key(loaded.network.to(runtime.device()), corpus_tokenizer_of(load_mlm_tokenizer(base)))
    return _head_cache(cache_dir).has(key)


def _head_cache(cache_dir: str | Path | None) -> Cache:
    return Cache(runtime.cache_dir(cache_dir) / "probes", _CACHE_BYTES)


def _head_key(language_model: LanguageModel, tokenizer: CorpusTokenizer) -> str:
    """Return the cache's key of the head that is trained for a base."""
    return fingerprint(
        _FORMAT,
        network.encoder_fingerprint(language_model.model),
        tokenizer.tokenizer,
        runtime.device().type,
        runtime.versions(),
    )


def _head_parameters(language_model: LanguageModel) -> dict[str, nn.Parameter]:
    own = {id(parameter) for parameter in language_model.head_parameters()}
    return {name: p for name, p in language_model.model.named_parameters() if id(p) in own}


def _overwrite_head(language_model: LanguageModel, values: Mapping[str, Tensor]) -> None:
    """Copy a head's parameters, by the names of `_head_parameters`, into a language model."""
    with torch.no_grad():
        for name, parameter in _head_parameters(language_model).items():
            parameter.copy_(values[name])


def _comments_eval_set(tokenizer: CorpusTokenizer, phase: Phase, masking: Masking, pad_id: int) -> EvalSet:
    """Return the bundled comments, masked: the text that a head is trained on."""
    with resources.as_file(resources.files("fullbake") / "resources" / "samples" / "comments.csv") as path:
        shard, _ = read_shard(file_source(path), tokenizer)
    parts = [(shard, shard.documents())]
    return draw_eval_set(parts, phase, "mlm", standard_masking(masking), pad_id, maskings=HEAD_MASKINGS)


def _collect_states(language_model: LanguageModel, eval_set: EvalSet) -> tuple[Tensor, Tensor]:
    """Return the frozen encoder's states at the masked tokens (n, width), and the ids to predict there (n,)."""
    states: list[Tensor] = []
    targets: list[np.ndarray] = []
    plan = [
        (batch, rows)
        for batch in eval_set.batches
        for rows in inference_plan(batch.encoded.lengths, token_budget=TOKEN_BUDGET)
    ]
    with torch.no_grad(), bar("reading general text", len(plan), "batches") as advance:
        for batch, rows in plan:
            stopping.check()
            inputs = collate(batch.encoded, rows, pad_id=eval_set.pad_id)
            hidden = language_model.hidden({name: tensor.to(runtime.device()) for name, tensor in inputs.items()})
            places, lengths = batch.encoded.places(rows)
            is_token = torch.from_numpy(np.arange(lengths.max()) < lengths[:, None]).to(hidden.device)
            chosen = torch.from_numpy(batch.chosen[places])
            states.append(hidden[is_token][chosen.to(hidden.device)])
            targets.append(batch.targets[places][batch.chosen[places]])
            advance(1)
    return torch.cat(states), torch.from_numpy(np.concatenate(targets).astype(np.int64)).to(states[0].device)


def _train_head(language_model: LanguageModel, states: Tensor, targets: Tensor) -> list[dict[str, Any]]:
    """Train the head on nine tenths of the states; the last tenth is for validation. Return the history."""
    edge = len(states) * 9 // 10
    config = TrainingConfig(
        optimizer="adam", learning_rate=(1e-3,), batch_size=128, epochs=HEAD_EPOCHS, precision="fp32"
    )
    config = config.model_copy(update={"metric": "neg_validation_loss"})

    def plan(epoch: int) -> Sequence[Step]:
        sizes = np.ones(edge, np.int64)
        return training_plan(sizes, batch_size=128, seed=0, epoch=epoch, token_budget=129, merge_last_single=False)

    def losses(_: nn.Module, step: Step, share: Step) -> Iterator[Tensor]:
        rows = torch.from_numpy(share.rows)
        yield cross_entropy(language_model.word_logits(states[rows]), targets[rows], reduction="sum") / len(step.rows)

    def validate(_: nn.Module, __: int) -> dict[str, float]:
        with torch.no_grad():
            loss = cross_entropy(language_model.word_logits(states[edge:]), targets[edge:]).item()
        return {"validation_loss": loss, "neg_validation_loss": -loss}

    def describe(entry: dict[str, Any]) -> str:
        losses = f"train loss {entry['train_loss']:.4f}  validation loss {entry['validation_loss']:.4f}"
        return f"masked-LM head, epoch {entry['epoch']}/{HEAD_EPOCHS}  {losses}"

    groups = [{"params": language_model.head_parameters(), "lr": 1e-3, "weight_decay": 0.0}]
    work = TrainingWork(plan, losses, validate, groups, edge, shared=False, describe=describe)
    return fit(language_model, work, config)
