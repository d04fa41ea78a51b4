"""Single convolutions."""

import itertools

import pytest
import torch
from leanresnet_torch import STENCILS, DenseConv2d, LeanConv2d, SeparableConv2d, ShiftConv2d
from leanresnet_torch.stencils import stencil_mask
from torch.nn import functional


def integers_(*tensors):
    """Small integers: sums of them are exact in any order."""
    with torch.no_grad():
        for tensor in tensors:
            tensor.copy_(torch.randint(-4, 5, tensor.shape))


def all_of(kind, **options):
    return [kind(8, stencil, group_size, **options) for stencil, group_size in itertools.product(STENCILS, (1, 2, 8))]


def test_stencils_have_their_taps():
    counts = {name: int(stencil_mask(name).sum()) for name in STENCILS}
    assert counts == {"cross4": 4, "cross5": 5, "box9": 9, "row3": 3, "col3": 3, "box25": 25}
    with pytest.raises(ValueError, match="stencil; expected one of cross4, .*got 'star7'"):
        LeanConv2d(8, "star7")


@pytest.mark.parametrize("kind", (LeanConv2d, SeparableConv2d))
def test_a_convolution_is_its_formula(kind):
    for conv in all_of(kind, bias=True):
        integers_(conv.spatial.weight, conv.pointwise.weight, conv.pointwise.bias)
        conv.spatial.zero_outside_()
        x = torch.randint(-3, 4, (2, 8, 6, 5)).float()
        size, radius = conv.spatial.group_size, conv.spatial.padding[0]
        padded = functional.pad(x, (radius,) * 4)
        spatial = torch.zeros_like(x)
        for channel, member, dy, dx in itertools.product(range(8), range(size), range(2 * radius + 1), range(2 * radius + 1)):
            weight = conv.spatial.weight[channel, member, dy, dx]
            spatial[:, channel] += weight * padded[:, channel // size * size + member, dy : dy + 6, dx : dx + 5]
        matrix = conv.pointwise.weight[:, :, 0, 0]
        mixed = torch.einsum("oi,nihw->nohw", matrix, spatial if kind is SeparableConv2d else x)
        expected = mixed + conv.pointwise.bias[:, None, None] + (0 if kind is SeparableConv2d else spatial)
        assert torch.equal(conv(x), expected), conv


def test_the_transpose_is_the_adjoint():
    for conv in [*all_of(LeanConv2d), DenseConv2d(8)]:
        integers_(*conv.parameters())
        x, y = (torch.randint(-3, 4, (2, 8, 6, 5)).float() for _ in range(2))
        assert (conv(x) * y).sum() == (x * conv.transpose(y)).sum(), conv


@pytest.mark.parametrize("optimizer", (torch.optim.SGD, torch.optim.AdamW))
def test_training_keeps_the_zeros_outside_of_a_stencil(optimizer):
    conv = LeanConv2d(8, "cross4")
    before = conv.spatial.weight.detach().clone()
    rule = optimizer(conv.parameters(), lr=0.1, weight_decay=0.01)
    for _ in range(3):
        rule.zero_grad()
        conv(torch.randn(2, 8, 5, 5)).square().sum().backward()
        rule.step()
    mask = stencil_mask("cross4")
    assert (conv.spatial.weight[..., ~mask] == 0).all()
    assert (conv.spatial.weight != before)[..., mask].all()


def test_values_outside_of_a_stencil_are_never_read():
    conv, x = LeanConv2d(8, "cross5"), torch.randn(1, 8, 5, 5)
    expected = conv(x)
    with torch.no_grad():
        conv.spatial.weight[..., 0, 0] = torch.nan
    assert torch.equal(conv(x), expected)


def test_weights_outside_of_a_stencil_are_not_loaded():
    state = LeanConv2d(8, "box9").state_dict()
    with pytest.raises(RuntimeError, match="spatial.weight outside of its stencil; expected zeros outside of cross5 .*fits is box9"):
        LeanConv2d(8, "cross5").load_state_dict(state)
    state = LeanConv2d(8, "row3").state_dict()
    LeanConv2d(8, "cross5").load_state_dict(state)
    with pytest.raises(RuntimeError, match="fits is row3"):
        LeanConv2d(8, "col3").load_state_dict(state)
    with pytest.raises(RuntimeError, match="size mismatch"):
        LeanConv2d(8, "box25").load_state_dict(state)


def test_shifts_are_fixed():
    conv = ShiftConv2d(18)
    assert [name for name, _ in conv.named_parameters()] == ["pointwise.weight"]
    x = torch.randn(1, 18, 4, 4)
    assert torch.equal(conv.spatial(x)[0, 9, 1:, 1:], x[0, 9, :-1, :-1])
    assert torch.equal(conv.spatial(x)[0, 4], x[0, 4])
    state = conv.state_dict()
    state["spatial.weight"][3, 0, 0, 0] = 1
    with pytest.raises(RuntimeError, match="spatial.weight is no shift; expected a single 1 .* got others in 1 channels"):
        ShiftConv2d(18).load_state_dict(state)


def test_weights_start_with_their_variance():
    for conv, variance in ((LeanConv2d(256, "box9"), 1 / 9), (SeparableConv2d(256, "box9"), 1 / 9)):
        assert abs(conv.spatial.weight.var() / variance - 1) < 0.15
    for conv, variance in ((LeanConv2d(256), 1 / 256), (SeparableConv2d(256), 2 / 256), (ShiftConv2d(256), 2 / 256)):
        assert abs(conv.pointwise.weight.var() / variance - 1) < 0.05
    assert abs(DenseConv2d(64).weight.var() * (9 * 64) / 2 - 1) < 0.05


def test_groups_divide_the_channels():
    for kind in (LeanConv2d, SeparableConv2d):
        with pytest.raises(ValueError, match="group_size; expected a divisor of 8 channels, got 3"):
            kind(8, "cross5", 3)
