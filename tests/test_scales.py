"""Which channel for which scale: verdicts from numbers alone, in all that can be."""
import math

import numpy as np
import pytest
import torch
from conftest import randomised
from scipy.stats import spearmanr
from test_door import Single
from torch import Tensor

from cosmoflow.data import open_maps
from cosmoflow.model import field_prior
from cosmoflow.scales import (ChannelOrder, ChannelScales, draw_rest, exact_p, halvings,
                              selectivity, spearman, swap_changes)

DICE = torch.Generator().manual_seed(0)
CHANGES = torch.rand(6, 32, generator=DICE) + 0.1
K = torch.linspace(0.25, 8, 32)
VERDICTS = {  # of numbers, of which one may be none
    "spearman, a": (lambda v: spearman(v, K), "a", K),
    "spearman, b": (lambda v: spearman(K, v), "b", K),
    "exact_p": (exact_p, "scores", torch.rand(70, generator=DICE)),
    "ChannelOrder": (lambda v: ChannelOrder.measure(K, v), "changes", CHANGES),
}


@pytest.mark.parametrize("place", (0, 5))
@pytest.mark.parametrize("name", VERDICTS)
def test_what_is_no_number_gets_no_verdict(name, place):
    "NaN had no rank, as if all were equal, and a p-value of 0, as if it were rare."
    ask, argument, values = VERDICTS[name]
    ask(values)
    spoilt = values.clone()
    spoilt.view(-1)[place] = math.nan
    with pytest.raises(ValueError, match=f"^{argument}: expected .*found NaN"):
        ask(spoilt)


@pytest.mark.parametrize("kind", (
    np.asarray, Tensor.double, Tensor.bfloat16, Tensor.int, Tensor.requires_grad_))
def test_rank_correlations_are_scipy_s_for_any_array(kind):
    a, b = (torch.randint(0, 6, (40,), generator=DICE).float() for _ in range(2))
    expected = spearmanr(a, b).statistic
    assert spearman(kind(a.clone()), kind(b.clone())) == pytest.approx(expected)
    assert spearman(a, torch.where(b > 2, math.inf, b)) == pytest.approx(
        spearmanr(a, torch.where(b > 2, 99, b)).statistic)


def test_ranks_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match=r"^b: expected shape \(32\), found \(31,\)"):
        spearman(K, K[1:])


def test_scores_may_lie_where_there_is_no_double_precision():
    scores = VERDICTS["exact_p"][2]
    assert exact_p(scores.as_subclass(Single), 3) == exact_p(scores, 3)


@pytest.mark.parametrize("channels", (0, -2, 22, 2.5, "8"))  # 64 never ends
def test_more_halvings_than_memory_holds_are_refused(channels):
    with pytest.raises(ValueError, match=f"^channels={channels!r}: expected a whole"):
        halvings(channels)
    assert len(halvings(12)) == math.comb(12, 6)


def test_a_channel_that_changes_nothing_is_nowhere():
    idle = torch.cat([CHANGES, torch.zeros(1, 32)])
    found, alone = (ChannelScales.measure(K, c) for c in (idle, CHANGES))
    assert found.centre[-1].isnan() and found.width[-1].isnan()
    torch.testing.assert_close(found.centre[:-1], alone.centre)
    order, expected = (ChannelOrder.measure(K, c) for c in (idle, CHANGES))
    assert not order.busy[-1] and order.rank == pytest.approx(expected.rank)
    assert order.selectivity == pytest.approx(expected.selectivity)
    assert math.isnan(selectivity(torch.zeros(3, 32)))


@pytest.mark.parametrize("groups", ([], [[]], [0, 1], [[8]]))
def test_groups_without_channels_are_refused(groups):
    maps = open_maps("PM", "CV", pixels=16).maps[:2]
    with pytest.raises(ValueError, match="^groups: .*expected lists of channels"):
        swap_changes(randomised(steps=1), maps, maps[::-1], groups)


def test_a_prior_is_any_array_of_its_shape():
    field = torch.randn(40, 4, 2, 2, generator=DICE)
    prior = field_prior(field)
    dice = lambda: torch.Generator().manual_seed(0)
    draw = lambda prior: draw_rest(prior, field[:3, :2], dice())
    assert torch.equal(draw(prior.numpy()), draw(prior))
    for wrong in (None, prior[..., 0], prior[0]):
        words = r"^prior: expected .*shape \(h, w, 1 \+ C, C, 2\), found "
        with pytest.raises(ValueError, match=words): draw(wrong)
