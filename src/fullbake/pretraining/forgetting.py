"""Forgetting, measured: how well an encoder still fills masked words of general text.

A base that came with a masked-LM head is measured with it. For one that has none (`demo`) a head is trained once on the
untouched, frozen encoder and kept; that very head, table of words and all, is put on whatever the encoder becomes. Its
loss says little by itself (the head saw few texts), but a rise of it can only come from the encoder.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast

from fullbake.config.sections import TrainingConfig
from fullbake.core import runtime, storage
from fullbake.core.cache import Cache
from fullbake.core.console import bar, say
from fullbake.core.hashing import fingerprint
from fullbake.models import network
from fullbake.models.batching import Step, inference_plan, training_plan
from fullbake.models.encoder import freeze_all, load_encoder
from fullbake.models.encoding import collate, read_special_token_template
from fullbake.models.masked_lm import LanguageModel, load_language_model
from fullbake.models.pretrained import load_config, max_positions
from fullbake.models.tokenizer import load_mlm_tokenizer
from fullbake.pretraining.corpus import read_shard
from fullbake.pretraining.corpus_tokens import CorpusTokenizer
from fullbake.pretraining.data_loader import Phase
from fullbake.pretraining.documents import DocumentSource, file_source, first_paragraphs
from fullbake.pretraining.examples import Masking
from fullbake.pretraining.mlm import EvalSet, draw_eval_set, evaluate_masked_lm, standard_masking
from fullbake.training.loop import TrainingWork, fit

PROBE_CHARACTERS: Final = 60_000
"""Of a file of general text: some 13,000 tokens, each masked four times, so some 8,000 guesses."""

PROBE_TOKENS: Final = 128
"""Tokens of a row of general text."""

TOKEN_BUDGET: Final = 2048

HEAD_MASKINGS: Final = 4
"""How often each text that a head learns from is masked."""

_CACHE_BYTES: Final = 2 * 1024**3
_FORMAT: Final = 1


@dataclass(frozen=True, eq=False)
class ForgettingProbe:
    """head: the language model whose head is used. own: whether the base came with it. gauge: the general text."""

    head: LanguageModel
    own: bool
    gauge: EvalSet

    def read(self, encoder: nn.Module) -> dict[str, float]:
        """mlm_loss (nats, mean over masked tokens) and mlm_accuracy of an encoder under the head."""
        return evaluate_masked_lm(self.head.over(encoder), self.gauge, TOKEN_BUDGET)


def open_probe(
    base: str | Path, *, text: str | None = None, cache_dir: str | Path | None = None, language: str = "en"
) -> ForgettingProbe:
    """The probe of a base. text: a file of general text, None for the bundled sentences. cache_dir: where a head that
    had to be trained is kept."""
    tokenizer = load_mlm_tokenizer(base)
    loaded = load_language_model(base, pairs=False, seed=0)
    loaded.network.to(runtime.device())
    if not loaded.own_head:
        reading, masking, phase = (
            corpus_tokenizer_of(tokenizer, language),
            make_masking(tokenizer),
            _general_phase(tokenizer, base),
        )
        _give_head(loaded.network, reading, phase, masking, tokenizer.pad_token_id, cache_dir)
    return ForgettingProbe(loaded.network, loaded.own_head, draw_general_eval_set(base, text, language))


def draw_general_eval_set(base: str | Path, text: str | None = None, language: str = "en") -> EvalSet:
    """The gauge of general text for a base's tokenizer: of a file's first PROBE_CHARACTERS, or of the bundled
    sentences."""
    tokenizer = load_mlm_tokenizer(base)
    source = general_text() if text is None else first_paragraphs(file_source(text), PROBE_CHARACTERS)
    shard, _ = read_shard(source, corpus_tokenizer_of(tokenizer, language))
    parts = [(shard, shard.documents())]
    return draw_eval_set(parts, _general_phase(tokenizer, base), "mlm", make_masking(tokenizer), tokenizer.pad_token_id)


def _general_phase(tokenizer: PreTrainedTokenizerFast, base: str | Path) -> Phase:
    return make_phase(tokenizer, 0, min(PROBE_TOKENS, max_positions(load_config(base))))


def probe(
    target: str | Path,
    *,
    base: str | Path | None = None,
    text: str | None = None,
    cache_dir: str | Path | None = None,
) -> dict[str, Any]:
    """What a base, or the encoder of a bundle, still knows of general text, beside what its own base knows.

    base: what it was made from; None: what its fullbake.json says, or itself. text: a file of general text. Returns
    base, own_head (whether the base came with a masked-LM head), words (masked tokens), before and after (mlm_loss,
    mlm_accuracy), and forgotten (the rise of the loss).
    """
    origin = _origin(target) if base is None else base
    opened = open_probe(origin, text=text, cache_dir=cache_dir)
    encoder = opened.head.model.base_model
    before = opened.read(encoder)
    after = before if str(origin) == str(target) else _after(target, opened)
    return {
        "base": str(origin),
        "own_head": opened.own,
        "words": opened.gauge.words,
        "before": before,
        "after": after,
        "forgotten": after["mlm_loss"] - before["mlm_loss"],
    }


def _after(target: str | Path, opened: ForgettingProbe) -> dict[str, float]:
    """A further pretrained base whose line has a masked-LM head of its own is measured with that one as it now is."""
    about = _about(target)
    if "recipe" in about:
        model = network.load_network(target)
        return opened.read(_placed(getattr(model, "base_model", model)))
    if opened.own:
        whole = load_language_model(target, pairs=False, seed=0).network.to(runtime.device())
        return evaluate_masked_lm(whole, opened.gauge, TOKEN_BUDGET)
    return opened.read(_placed(load_encoder(target)))


def _placed(encoder: nn.Module) -> nn.Module:
    return encoder.to(runtime.device())


def _origin(target: str | Path) -> str:
    """What a folder of ours was made from; itself, where it is none."""
    about = _about(target)
    if "recipe" in about:
        return str(about["recipe"]["base"])
    return str(about.get("base") or target)


def _about(target: str | Path) -> dict[str, Any]:
    path = Path(target) / "fullbake.json"
    about: dict[str, Any] = storage.read_json(path) if path.is_file() else {}
    return about


def corpus_tokenizer_of(tokenizer: PreTrainedTokenizerFast, language: str = "en") -> CorpusTokenizer:
    """How a corpus is tokenized by it."""
    return CorpusTokenizer(tokenizer.backend_tokenizer.to_str(), tokenizer.unk_token_id, language)


def make_masking(tokenizer: PreTrainedTokenizerFast, **settings: Any) -> Masking:
    """15%, 80/10/10, unless the settings (fields of Masking) say otherwise. Random tokens are never special ones."""
    ids = np.fromiter(tokenizer.get_vocab().values(), np.int32)
    vocabulary = np.setdiff1d(ids, tokenizer.all_special_ids).astype(np.int32)
    defaults = {"probability": 0.15, "mask": 0.8, "random": 0.1, "whole_words": False}
    assert isinstance(tokenizer.mask_token_id, int)
    return Masking(mask_id=tokenizer.mask_token_id, vocabulary=vocabulary, **(defaults | settings))


def make_phase(tokenizer: PreTrainedTokenizerFast, steps: int, length: int) -> Phase:
    """So many steps on rows of at most `length` tokens."""
    alone, paired = (read_special_token_template(tokenizer, length, pair=pair) for pair in (False, True))
    return Phase(steps, alone, paired, "token_type_ids" in tokenizer.model_input_names)


def general_text() -> DocumentSource:
    """The bundled sentences."""
    with resources.as_file(resources.files("fullbake") / "resources" / "samples" / "general.txt") as path:
        return file_source(path)


# A head for a base that has none


def _give_head(
    language_model: LanguageModel,
    reading: CorpusTokenizer,
    phase: Phase,
    masking: Masking,
    pad_id: int,
    cache_dir: str | Path | None,
) -> None:
    """Put a trained masked-LM head on a base that came without, from the cache where it is known. The encoder is held
    fixed from here on."""
    freeze_all(language_model.model.base_model)
    cache = Cache(runtime.cache_dir(cache_dir) / "probes", _CACHE_BYTES)
    key = fingerprint(_FORMAT, network.encoder_fingerprint(language_model.model), reading.tokenizer)
    folder = cache.get(key)
    if folder is None:
        say("the base has no masked-LM head: training one on its frozen encoder, to measure forgetting by (once)")
        _train_head(language_model, _lessons(language_model, reading, phase, masking, pad_id))
        if runtime.rank() == 0:
            with cache.put(key, "masked-LM head for a base that has none") as fresh:
                arrays = {name: p.detach().cpu().numpy() for name, p in _head_state(language_model).items()}
                storage.write_tensors(fresh / "head.safetensors", arrays)
        return
    stored = storage.read_tensors(folder / "head.safetensors")
    with torch.no_grad():
        for name, parameter in _head_state(language_model).items():
            parameter.copy_(torch.from_numpy(stored[name]))


def _head_state(language_model: LanguageModel) -> dict[str, nn.Parameter]:
    own = {id(parameter) for parameter in language_model.head_parameters()}
    return {name: p for name, p in language_model.model.named_parameters() if id(p) in own}


def _lessons(
    language_model: LanguageModel, reading: CorpusTokenizer, phase: Phase, masking: Masking, pad_id: int
) -> tuple[Tensor, Tensor]:
    """(states of masked tokens (n, width), the tokens (n,)) of the bundled comments under the frozen encoder."""
    with resources.as_file(resources.files("fullbake") / "resources" / "samples" / "comments.csv") as path:
        shard, _ = read_shard(file_source(path), reading)
    gauge = draw_eval_set(
        [(shard, shard.documents())], phase, "mlm", standard_masking(masking), pad_id, maskings=HEAD_MASKINGS
    )
    states: list[Tensor] = []
    targets: list[np.ndarray] = []
    plan = [
        (batch, rows)
        for batch in gauge.batches
        for rows in inference_plan(batch.encoded.lengths, token_budget=TOKEN_BUDGET)
    ]
    with torch.no_grad(), bar("reading general text", len(plan), "batches") as advance:
        for batch, rows in plan:
            inputs = collate(batch.encoded, rows, pad_id=pad_id)
            hidden = language_model.hidden({name: tensor.to(runtime.device()) for name, tensor in inputs.items()})
            places, lengths = batch.encoded.places(rows)
            mask = torch.from_numpy(np.arange(lengths.max()) < lengths[:, None]).to(hidden.device)
            chosen = torch.from_numpy(batch.chosen[places])
            states.append(hidden[mask][chosen.to(hidden.device)])
            targets.append(batch.targets[places][batch.chosen[places]])
            advance(1)
    return torch.cat(states), torch.from_numpy(np.concatenate(targets).astype(np.int64)).to(states[0].device)


def _train_head(language_model: LanguageModel, lessons: tuple[Tensor, Tensor]) -> None:
    states, targets = lessons
    edge = len(states) * 9 // 10
    config = TrainingConfig(optimizer="adam", learning_rate=(1e-3,), batch_size=128, epochs=2, precision="fp32")
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

    groups = [{"params": language_model.head_parameters(), "lr": 1e-3, "weight_decay": 0.0}]
    fit(language_model, TrainingWork(plan, losses, validate, groups, edge, shared=False), config)
