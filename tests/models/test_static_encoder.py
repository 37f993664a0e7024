"""The static encoder: what it computes, that padding and batches change nothing, and that it saves and loads."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional

from fullbake.models.encoder import config_with_labels
from fullbake.models.network import EncoderForTextClassification, EncoderHeadConfig, load_network
from fullbake.models.static_encoder import StaticEncoder, StaticEncoderConfig, pair_buckets_of

VOCABULARY, BUCKETS, WIDTH = 40, 31, 6


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    config = StaticEncoderConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, token_rows=30, pair_buckets=BUCKETS, max_position_embeddings=16
    )
    encoder = StaticEncoder(config).eval()
    encoder.token_rows.weight.data.copy_(torch.arange(VOCABULARY) % 30)
    encoder.set_table(torch.randn(30 + BUCKETS, WIDTH))
    return encoder


def test_state_is_the_mean_over_tokens_and_pairs(encoder):
    ids = [3, 35, 7]
    rows = [encoder.token_rows.weight[i].item() for i in ids]
    rows += [30 + (a * 1_000_003 + b) % BUCKETS for a, b in ((0, 3), (3, 35), (35, 7))]
    table = encoder.codes.float() * encoder.scales[:, None]
    found = encoder(torch.tensor([ids])).last_hidden_state
    assert found.shape == (1, 1, WIDTH)
    torch.testing.assert_close(found[0, 0], table[rows].sum(dim=0) / 3)


def test_padding_and_other_texts_do_not_change_a_text(encoder):
    ids = torch.randint(0, VOCABULARY, (5, 9))
    lengths = torch.tensor([9, 1, 4, 7, 2])
    mask = (torch.arange(9) < lengths[:, None]).long()
    together = encoder(ids, attention_mask=mask).last_hidden_state
    for row, length in enumerate(lengths.tolist()):
        alone = encoder(ids[row : row + 1, :length]).last_hidden_state
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-6)


def test_order_of_tokens_matters_through_pairs(encoder):
    one, other = encoder(torch.tensor([[1, 2, 3]])), encoder(torch.tensor([[3, 2, 1]]))
    assert not torch.allclose(one.last_hidden_state, other.last_hidden_state)


def test_export_computes_the_same_without_bags(encoder):
    ids = torch.randint(0, VOCABULARY, (3, 8))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    program = torch.export.export(encoder, (ids,), {"attention_mask": mask}, strict=False)
    assert not any("embedding_bag" in str(node.target) for node in program.graph.nodes)
    found = program.module()(ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(found, encoder(ids, attention_mask=mask).last_hidden_state, rtol=0, atol=1e-6)


def test_codes_are_within_half_a_step_of_the_vectors():
    encoder = StaticEncoder(StaticEncoderConfig(hidden_size=50, token_rows=9, pair_buckets=1))
    table = torch.randn(10, 50) * torch.logspace(-6, 3, 10)[:, None]
    table[4] = 0
    encoder.set_table(table)
    decoded = encoder.codes.float() * encoder.scales[:, None]
    steps = table.abs().amax(dim=1, keepdim=True) / 127
    assert ((decoded - table).abs() <= 0.501 * steps).all()
    assert (decoded[4] == 0).all()


def test_pairs_spread_over_the_buckets():
    random = np.random.default_rng(0)
    ids = torch.from_numpy(random.integers(0, 30_000, (1, 60_000)))
    counts = np.bincount(pair_buckets_of(ids, 32_749)[0].numpy(), minlength=32_749)
    assert counts.max() < 14  # a Poisson of mean 1.8 passes 13 once in a million
    assert (counts == 0).mean() == pytest.approx(np.exp(-60_000 / 32_749), abs=0.01)


def test_ids_near_the_largest_vocabulary_do_not_overflow():
    last = 2**24
    found = pair_buckets_of(torch.tensor([[last, last]]), 32_749)
    assert found[0, 1].item() == (last * 1_000_003 + last) % 32_749


def test_classifier_saves_and_loads_with_its_codes(encoder, tmp_path):
    config = EncoderHeadConfig(encoder.config, pooling="cls", head="linear")
    config_with_labels(config, ("a", "b", "c"))
    network = EncoderForTextClassification(config).eval()
    network.encoder.load_state_dict(encoder.state_dict())
    network.save_pretrained(tmp_path)
    loaded = load_network(tmp_path)
    ids = torch.randint(0, VOCABULARY, (4, 6))
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, network(ids).logits, rtol=0, atol=0)
    assert loaded.encoder.codes.dtype == torch.int8
    assert loaded.encoder.token_rows.weight.dtype == torch.int32
    assert loaded.get_input_embeddings().weight.shape == (VOCABULARY,)


def test_table_in_fp32_follows_new_codes(encoder):
    own = StaticEncoder(encoder.config)
    own.load_state_dict(encoder.state_dict())
    ids = torch.tensor([[1, 2]])
    before = own(ids).last_hidden_state
    own.set_table(torch.ones(30 + BUCKETS, WIDTH))
    after = own(ids).last_hidden_state
    torch.testing.assert_close(after, torch.full_like(after, 2.0))
    assert not functional.cosine_similarity(before, after, dim=-1).allclose(torch.ones(1))


def test_module_that_loads_networks_registers_the_encoder():
    """A process that loads a student imports nothing else of it, so other tests in this process prove nothing."""
    code = (
        "import fullbake.models.network, transformers;"
        "config = transformers.AutoConfig.for_model('fullbake-static', vocab_size=5, hidden_size=3);"
        "print(type(transformers.AutoModel.from_config(config)).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "StaticEncoder", done.stderr
