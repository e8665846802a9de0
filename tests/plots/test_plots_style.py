"""What all figures share: markings, densities, thinned paths; and what importing them costs."""

import sys

import numpy as np
import pytest
import torch
from cases import RING

import toydiff
from toydiff.catalog import METHODS
from toydiff.plots import (
    clips,
    digits,
    discriminators,
    grids,
    interactive,
    on_screen,
    orders,
    paths,
    scoreboard,
    scores,
    static,
    style,
    sweeps,
    tokens,
    training,
)
from toydiff.solvers.registry import PARALLEL, SKY, SOLVERS

VP = toydiff.VP()


def test_a_solvers_marking_is_its_entry():
    symbols = {"o": "circle", "s": "square", "^": "triangle-up", "v": "triangle-down", "D": "diamond"}
    for name, entry in (SOLVERS | PARALLEL).items():
        seen = style.marking(name)
        assert (seen.color, seen.marker, seen.dash) == (entry.color, entry.marker, entry.dash), name
        assert (seen.symbol, seen.line) == (symbols[entry.marker], style.LINES[entry.dash]), name
    with pytest.raises(ValueError, match="did you mean 'ddim'"):
        style.marking("dimm")


def test_methods_of_a_comparison_are_marked_like_their_solvers_and_can_be_distinguished():
    assert style.parallel_marking("sequential") == style.marking("ddim")
    assert [style.parallel_marking(name) for name in PARALLEL] == [style.marking(name) for name in PARALLEL]
    assert style.parallel_marking("window").color == SKY
    seen = [style.parallel_marking(name) for name in ("sequential", "window", *PARALLEL)]
    assert len({one.color for one in seen}) == len(seen)
    assert len({one.marker for one in seen}) >= len(seen) - 1
    with pytest.raises(ValueError, match="did you mean 'picard'"):
        style.parallel_marking("piccard")


def test_a_methods_marking_is_its_card_and_others_get_colours_that_are_free():
    seen = style.markings(["rectified-diffusion", "mine", "instaflow", "yours"])
    for name in ("rectified-diffusion", "instaflow"):
        card = METHODS[name]
        assert (seen[name].color, seen[name].marker, seen[name].dash) == (card.color, card.marker, card.dash)
    assert len({one.color for one in seen.values()}) == 4
    assert len(style.markings([*METHODS, *"abcdefgh"])) == len(METHODS) + 8  # more than there are colours
    beside = style.markings(["mine", "teacher", "cd"])
    assert beside["teacher"].color == style.INK
    assert beside["mine"] == style.markings(["mine", "cd"])["mine"]


def test_importing_toydiff_loads_no_figures_and_figures_load_their_library_when_drawn():
    """In this process, as if none of them had been imported before."""
    before, libraries = dict(sys.modules), ("toydiff", "matplotlib", "mpl_toolkits", "plotly")

    def loaded(*packages):
        return [name for name in sys.modules if name.split(".")[0] in packages]

    try:
        for name in loaded(*libraries):
            del sys.modules[name]
        __import__("toydiff")
        assert not [name for name in sys.modules if name.startswith("toydiff.plots")]
        for name in ("toydiff.plots.interactive", "toydiff.plots.static", "toydiff.plots.screen"):
            __import__(name)
        assert not loaded("plotly", "matplotlib")
    finally:
        sys.modules.clear()
        sys.modules.update(before)


def test_static_and_interactive_are_the_figures_of_their_renderer():
    """And there is no figure that neither names."""
    for module, renderer in ((static, "static"), (interactive, "interactive")):
        made = {
            name.removesuffix(f"_{renderer}"): figure
            for subject in (
                clips,
                digits,
                discriminators,
                grids,
                orders,
                paths,
                scoreboard,
                scores,
                sweeps,
                tokens,
                training,
            )
            for name, figure in vars(subject).items()
            if name.endswith(f"_{renderer}") and not name.startswith("_")
        }
        assert {
            name: getattr(module, name) for name in module.__all__ if name not in ("png", "page", "embedded")
        } == made


def test_words_for_both_are_written_once():
    assert on_screen.words("$y_1 = x_1/\\sigma$ of\n$x_2$") == "y₁ = x₁/σ of<br>x₂"
    assert on_screen.words("run_1 for 2$") == "run_1 for 2$"  # a user's own name


# ---- paths


@pytest.fixture(scope="module")
def path():
    x = VP.prior((7, 2), 0, dtype=torch.float64)
    return toydiff.solve(RING.denoiser(VP), x, 300, solver="ddim")


def test_thin_keeps_the_ends_and_the_bends(path):
    kept = style.thin(path, 40)
    assert kept[0] == 0
    assert kept[-1] == 300
    assert len(kept) <= 40
    assert bool((kept.diff() > 0).all())
    # no state that was left out is further from the drawn polygon than the eye can see
    for b in range(7):
        drawn = np.stack([np.interp(np.arange(301), kept.numpy(), path.xs[kept, b, j].numpy()) for j in range(2)], 1)
        assert np.abs(drawn - path.xs[:, b].numpy()).max() < 0.06
    assert style.thin(path, 301).tolist() == list(range(301))


# ---- densities


def test_density_is_the_mixtures_on_a_square_that_holds_everything():
    far = torch.tensor([[5.0, -1.0]])
    lattice = style.density(RING, [far], points=41)
    (left, right), (bottom, top) = lattice.limits
    assert right > 5 > left
    assert right - left == pytest.approx(top - bottom)
    # its outermost values are the middles of the picture's outermost pixels
    assert np.subtract(lattice.extent, (left, right, bottom, top)) * 80 / (right - left) == pytest.approx(
        [-1, 1, -1, 1]
    )
    at = torch.tensor([[lattice.x[7], lattice.y[30]], [lattice.x[20], lattice.y[22]]])
    exact = RING.log_prob(at).exp()
    assert lattice.p[30, 7] / lattice.p[22, 20] == pytest.approx(float(exact[0] / exact[1]), rel=1e-12)
    assert lattice.shade.max() == 1
    with pytest.raises(ValueError, match="dimension 3"):
        style.density(toydiff.mixtures.random_mixture(dim=3))


def test_a_density_between_the_lattices_points_is_shaded_all_the_same():
    """So narrow that it underflows at each of them."""
    for mixture in (toydiff.GaussianMixture([[0.013, 0.0]], std=1e-4), RING):
        shade = style.density(mixture, [torch.tensor([[240.0, 240.0], [-240.0, -240.0]])]).shade
        assert np.isfinite(shade).all()
        assert shade.max() == 1
