import math

import numpy as np
import pytest
import torch
from torch import nn

from fullbake.models.fast_attention import LEVELS, WordDropout, draw_kept, drop_level

COUNT = 1 << 20


@pytest.mark.parametrize("rate", [0.1, 0.15, 0.5, 0.9])
def test_rate_and_mean_are_those_asked_for(rate: float) -> None:
    """Within five standard deviations."""
    torch.manual_seed(0)
    dropped = WordDropout(rate)(torch.ones(COUNT))
    exact = drop_level(rate) / LEVELS
    assert abs(exact - rate) <= 0.5 / LEVELS
    share = (dropped == 0).float().mean().item()
    assert abs(share - exact) < 5 * math.sqrt(rate * (1 - rate) / COUNT)
    torch.testing.assert_close(dropped.unique(), torch.tensor([0.0, 1 / (1 - exact)]))


def test_neighbors_are_dropped_independently() -> None:
    """Also the four elements that share a number of the generator."""
    torch.manual_seed(0)
    gone = (WordDropout(0.5)(torch.ones(COUNT)) == 0).double() - 0.5
    for distance in (1, 2, 3, 4, 384):
        correlation = (gone[:-distance] * gone[distance:]).mean().item() / 0.25
        assert abs(correlation) < 5 / math.sqrt(COUNT), distance


def test_the_gradient_passes_where_the_value_did() -> None:
    torch.manual_seed(0)
    values = torch.randn(7, 5, 3, requires_grad=True)
    dropped = WordDropout(0.3)(values)
    dropped.backward(torch.full_like(dropped, 2.0))
    assert values.grad is not None
    torch.testing.assert_close(values.grad * values.detach() / 2, dropped.detach())


def test_a_mask_follows_from_torchs_seed() -> None:
    def drop(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        layer = WordDropout(0.1)
        return torch.stack([layer(torch.ones(1000)) for _ in range(2)])

    first, again, other = drop(0), drop(0), drop(1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize(
    ("layer", "values"),
    [
        (WordDropout(0.1).eval(), torch.ones(100)),
        (WordDropout(0.0), torch.ones(100)),
        (WordDropout(1.0), torch.ones(100)),
        (WordDropout(0.1), torch.ones(100, dtype=torch.bfloat16)),
        (WordDropout(0.1), torch.ones(100, dtype=torch.float64)),
    ],
    ids=["eval", "rate 0", "rate 1", "bf16", "fp64"],
)
def test_elsewhere_it_is_torchs(layer: WordDropout, values: torch.Tensor) -> None:
    torch.manual_seed(0)
    ours = layer(values)
    torch.manual_seed(0)
    assert torch.equal(ours, nn.functional.dropout(values, layer.p, layer.training))


def test_strides_do_not_matter() -> None:
    values = torch.arange(1.0, 25.0).view(4, 6)
    torch.manual_seed(0)
    plain = WordDropout(0.5)(values)
    torch.manual_seed(0)
    assert torch.equal(WordDropout(0.5)(values.t().contiguous().t()), plain)


def test_any_number_of_elements_is_drawn() -> None:
    for size in (1, 3, 4, 5):
        kept = np.zeros(size, dtype=np.bool_)
        draw_kept(np.random.SFC64(0), 1, kept)
        assert kept.all()
