"""Clips of digits: how they move, measures that see it, the bundled image network with temporal layers, and every
solver without knowing of frames."""

import functools
import math

import pytest
import scipy.ndimage
import torch
from cases import close
from tiny import TinyClips

from toydiff import PARALLEL, SOLVERS, solve, weights
from toydiff.denoisers import LambdaDenoiser, Wrapper
from toydiff.nets import ClipUNet
from toydiff.prediction import Prediction
from toydiff.problems import ClipsProblem, DigitsProblem, clips, problem
from toydiff.problems.clips import SPEEDS, STYLES, TURNING, ink, middle, moving, turning_rate
from toydiff.problems.digits import TEACHER_ID


@pytest.fixture(scope="module")
def on():
    """The problem, compared with fewer clips than it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips, "REFERENCE", 200)
        made = ClipsProblem()
        assert len(made.reference.classes) == 200
        yield made


def test_names():
    assert problem("clips").name == "clips"
    assert problem("clips:bold").style == "bold"
    with pytest.raises(ValueError, match="did you mean 'outlined'"):
        problem("clips:outline")


# ---- how digits move


def test_a_digit_moves_by_whole_pixels_and_turns_by_quarters():
    images = torch.zeros(2, 1, 28, 28)
    images[:, 0, 8:20, 10:14] = torch.rand(2, 12, 4)
    images = images - 1
    moved = moving(images, torch.tensor([[2.0, -1.0], [0.0, 0.0]]), torch.tensor([0.0, math.pi / 2]), frames=3)
    torch.testing.assert_close(moved[:, 1], images)
    torch.testing.assert_close(moved[0, 2], images[0].roll((-1, 2), (1, 2)), rtol=0, atol=1e-5)
    torch.testing.assert_close(moved[1, 2], images[1].rot90(-1, (1, 2)), rtol=0, atol=1e-5)


def test_moving_is_scipys_affine_map():
    image = ClipsProblem().digits.train[:1]
    velocity, turning = torch.tensor([[0.7, -0.4]]), torch.tensor([0.06])
    found = moving(image, velocity, turning)[0, -1, 0] + 1
    angle, centre = 3.5 * float(turning), (28 - 1) / 2
    # rows are down and columns to the right: where a place comes from is the inverse map
    back = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    to = 3.5 * velocity[0].flip(0) + centre
    known = scipy.ndimage.affine_transform(image[0, 0].numpy() + 1, back.numpy(), (centre - back @ to).numpy(), order=1)
    torch.testing.assert_close(found, torch.as_tensor(known), rtol=0, atol=2e-4)


def test_data_move_as_is_stated():
    x, labels = ClipsProblem().data(300, 1)
    assert x.shape == (300, 8, 1, 28, 28)
    assert float(x.min()) >= -1
    assert float(x.max()) <= 1
    assert set(labels.tolist()) == set(range(10))
    mass = ink(x)
    speed = middle(mass).diff(dim=1).mean(1).norm(dim=1)
    assert SPEEDS[0] - 0.1 < float(speed.min()) < 0.6
    assert 0.9 < float(speed.max()) < SPEEDS[1] + 0.1
    rate = turning_rate(mass)
    assert float(rate.abs().max()) < TURNING + 0.02
    assert float(rate.std()) == pytest.approx(TURNING / 3**0.5, rel=0.15)
    again, _ = ClipsProblem().data(300, 1)
    assert torch.equal(x, again)
    frames, of = ClipsProblem().single_frames(20, 1)
    assert frames.shape == (20, 1, 28, 28)
    assert of.shape == (20,)


def test_motion_is_seen_in_every_style():
    images = ClipsProblem().digits.train[::100]
    velocity, turning = torch.rand(40, 2) - 0.5, torch.rand(40) * 0.1 - 0.05
    x = moving(images, velocity, turning)
    for style, change in STYLES.items():
        mass = ink(change(x.flatten(0, 1)).view_as(x))
        assert float((middle(mass).diff(dim=1).mean(1) - velocity).abs().mean()) < 0.05, style
        assert float((turning_rate(mass) - turning).abs().median()) < 0.01, style


def test_no_ink_has_a_middle():
    found = middle(ink(torch.full((1, 2, 1, 28, 28), -1.0)))
    torch.testing.assert_close(found, torch.full((1, 2, 2), 13.5))


def test_styles():
    x = -torch.ones(1, 1, 28, 28)
    x[0, 0, 10:15, 10] = 1.0
    ink_of = {style: int((change(x) > 0).sum()) for style, change in STYLES.items()}
    assert ink_of == {"plain": 5, "inverted": 28 * 28 - 5, "bold": 7 * 3, "outlined": 7 * 3 - 5}


# ---- measures


def broken(x, how):
    """Clips that stand still, whose frames are in random order, or whose second half is another clip's."""
    if how == "static":
        return x[:, 3:4].expand_as(x)
    if how == "spliced":
        return torch.cat([x[:, :4], x.roll(1, 0)[:, 4:]], 1)
    order = torch.rand(x.shape[:2], generator=torch.Generator().manual_seed(0)).argsort(1)
    return x.gather(1, order[..., None, None, None].expand_as(x))


def test_clips_without_motion_fail_where_their_frames_pass(on):
    x, labels = on.data(100, 7)

    def beyond(part):
        return (part.value - part.floor) / part.floor_std

    true = on.measure(x, labels)
    assert all(beyond(part) < 5 for part in true.parts.values())
    assert true.accuracy > 0.97
    found = {how: on.measure(broken(x, how), labels) for how in ("static", "shuffled", "spliced")}
    for how, broken_at in (
        ("static", ["lag-1", "velocity", "turning"]),
        ("shuffled", ["lag-1", "velocity"]),
        ("spliced", ["lag-1", "identity"]),
    ):
        parts = found[how].parts
        assert beyond(parts["frame"]) < 5
        assert all(beyond(parts[name]) > 5 for name in broken_at), (how, parts)
        if how != "shuffled":  # its first and last frames are two frames of a clip too, if not that far apart
            assert found[how].distance > true.distance + 5 * true.floor_std, how
    assert found["static"].parts["velocity"].value > 5 * true.parts["velocity"].value


def test_wrong_clips_are_named(on):
    with pytest.raises(ValueError, match=r"shape \(n, 8, 1, 28, 28\), got \(4, 1, 28, 28\)"):
        on.measure(torch.zeros(4, 1, 28, 28))
    with pytest.raises(ValueError, match="NaN"):
        on.measure(torch.full((2, 8, 1, 28, 28), torch.nan))


# ---- networks


def test_at_the_start_each_frame_is_the_bundled_networks_to_the_last_bit():
    base, net = weights.load_denoiser(TEACHER_ID), ClipsProblem().network()
    assert net.config == {"frames": 8, **DigitsProblem().network().config, "rank": 0}
    x, lam, cond = torch.randn(3, 8, 1, 28, 28), torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([0, 5, -1])
    with torch.no_grad():
        out = net(x, lam, cond)
        each = lam.repeat_interleave(8), cond.repeat_interleave(8)
        assert torch.equal(out, base.net(x.flatten(0, 1), *each).view_as(x))
        assert bool((out != 0).any())
        net.temporal[0].out.weight.normal_()
        assert not torch.equal(out, net(x, lam, cond))


def awake(**config):
    """A small network of clips whose layers all do something."""
    torch.manual_seed(0)
    net = ClipUNet(widths=(8, 16), middle=2, embedding=16, **config)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    return net


def test_temporal_layers_join_frames_of_one_clip_and_of_no_other():
    net = awake()
    x, lam = torch.randn(3, 8, 1, 28, 28), torch.randn(3)
    changed = x.clone()
    changed[0, 7] += 1
    with torch.no_grad():
        moved = (net(changed, lam) - net(x, lam)).abs().amax((2, 3, 4)) > 1e-6
        assert moved[0].all()
        assert not moved[1:].any()
        assert net.features(x, lam).shape == (3, net.feature_width)


def test_a_low_rank_adapter_is_on_the_image_network_alone():
    net = awake(classes=10, guided=True, rank=2)
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    adapters = {name for name, _ in net.named_parameters() if name.endswith((".0.up", ".0.down"))}
    assert {name for name in trained if name.startswith("image.")} == adapters
    assert trained - adapters == {name for name, _ in net.named_parameters() if not name.startswith("image.")}
    base, x, told = net.base(), torch.randn(2, 1, 28, 28), (torch.randn(2), torch.tensor([1, 2]))
    assert not any("parametrizations" in name for name in base.state_dict())
    with torch.no_grad():
        assert not torch.equal(base(x, *told), net.image(x, *told))
        for name, p in net.named_parameters():
            if name.endswith(".0.up"):
                p.zero_()
        torch.testing.assert_close(base(x, *told), net.image(x, *told))


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"rank": -1}, {"widths": (8, 12)}, {"middle": 0}])
def test_wrong_sizes(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ClipUNet(**wrong)
    with pytest.raises(ValueError, match=r"clips \(B, 8, 1, H, W\)"):
        ClipUNet()(torch.zeros(3, 8, 28, 28), torch.zeros(3))


class Flat(Wrapper):
    """A denoiser of clips as one of vectors."""

    def forward(self, x, t, cond=None, guidance_scale=1.0):
        p = self.denoiser(x.view(-1, *TinyClips.shape), t, cond, guidance_scale)
        return Prediction(x, t, p.x0.flatten(1), p.eps.flatten(1), self.schedule)


@functools.cache
def clip_model():
    return LambdaDenoiser(awake(classes=10), TinyClips().schedule, "v").eval().requires_grad_(False)


@pytest.mark.parametrize("solver", [*SOLVERS, *PARALLEL])
def test_no_solver_knows_of_frames(solver):
    """A clip's path is that of the vector which holds its frames."""
    x = torch.randn(2, *TinyClips.shape, generator=torch.Generator().manual_seed(0))
    cond = torch.tensor([3, 4])
    found, vectors = (
        solve(D, start, 4, solver=solver, cond=cond, guidance_scale=1.5, generator=3)
        for D, start in ((clip_model(), x), (Flat(clip_model()), x.flatten(1)))
    )
    assert found.end.shape == x.shape
    close(found.end.flatten(1), vectors.end, 1e-4)
    assert found.nfe == vectors.nfe
