"""The best discriminator on a line, against a case that can be written out."""

import pytest
import torch

from toydiff.mixtures import GaussianMixture
from toydiff.plots import interactive
from toydiff.plots.discriminators import level


def at(mean, std=0.2):
    return GaussianMixture([[mean]], std=std)


@pytest.mark.parametrize("r", [0.1, 0.4, 2.5])
def test_two_bumps_have_a_step_between_them_whose_average_is_the_normal_distributions(r):
    one = level(at(0.8), at(-0.8), r)
    far = (one.y.abs() > 0.02) & (one.y.abs() < 3)
    assert torch.equal(one.best[far], torch.sign(one.y[far]))
    exact = 2 * torch.special.ndtr(one.y / r) - 1
    step = float(one.y[1] - one.y[0])
    assert float((one.average - exact).abs().max()) < step / r  # the step lies within one cell of the points
    normal = torch.exp(-0.5 * (one.y / r) ** 2) * 2 / (r * (2 * torch.pi) ** 0.5)
    assert float((one.slope - normal)[5:-5].abs().max()) < 0.1 * float(normal.max())
    wide = 0.2**2 + r**2
    exact_p = torch.exp(-0.5 * (one.y - 0.8) ** 2 / wide) / (2 * torch.pi * wide) ** 0.5
    assert torch.allclose(one.p, exact_p, atol=1e-12)


def test_equal_densities_have_no_discriminator():
    one = level(at(0.3), at(0.3), 0.5)
    assert float(one.best.abs().max()) == float(one.slope.abs().max()) == 0


def test_the_figure_moves_with_its_slider_and_opens_where_it_should():
    levels = [level(at(0.8), at(-0.8, 0.4), r) for r in (0.1, 0.5, 1.0)]
    figure = interactive.discriminators(levels, active=1)
    assert [step.label for step in figure.layout.sliders[0].steps] == ["0.1", "0.5", "1"]
    assert figure.layout.sliders[0].active == 1
    for shown, frame in zip(figure.data, figure.frames[1].data, strict=True):
        assert (shown.y == frame.y).all()
    assert max(abs(figure.frames[0].data[3].y - figure.frames[2].data[3].y)) > 0.3
    for frame in figure.frames:  # on one scale: D is 1 where the data's density is the higher one
        p, q, best, _ = (data.y for data in frame.data)
        assert max(p.max(), q.max()) == 1
        seen = abs(p - q) > 1e-4
        assert ((p > q) == (best > 0))[seen].all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: level(at(0.0), at(1.0), 0.0), "r must be a finite number > 0, got 0.0"),
        (lambda: level(at(0.0), GaussianMixture([[0.0, 1.0]], std=1.0), 1.0), "on the line, got dimension 2"),
        (lambda: interactive.discriminators([]), "nothing to draw"),
        (lambda: interactive.discriminators([level(at(0.0), at(1.0), 1.0)], active=1), "active must be 0 to 0, got 1"),
    ],
)
def test_what_cannot_be_drawn(call, message):
    with pytest.raises(ValueError, match=message):
        call()
