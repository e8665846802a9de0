"""Clips: exact laws, exact flows, measures that see motion, and every solver without knowing of frames."""

import math

import pytest
import torch
from cases import RING, close

from toydiff import PARALLEL, SOLVERS, solve
from toydiff.nets import ClipMLP
from toydiff.problems import problem, sequence
from toydiff.problems.sequences import SEQUENCES, SPEEDS, SequenceProblem, gaussian_clips, lag_correlation

GAUSSIAN, TURNING = sequence("gaussian"), sequence("ring")
FRAMES, STD, RHO = 8, 0.8, 0.8


def ar1():
    """The covariance over the frames, written out."""
    return torch.tensor([[STD**2 * RHO ** abs(i - j) for j in range(FRAMES)] for i in range(FRAMES)]).double()


def test_names():
    assert problem("sequence").name == "sequence:ring"
    assert problem("sequence:gaussian").shape == (8, 2)
    with pytest.raises(ValueError, match="did you mean 'ring'"):
        problem("sequence:rings")
    with pytest.raises(ValueError, match="multiple of 3"):
        SequenceProblem(gaussian_clips(), "wrong", frames=3)


@pytest.mark.usefixtures("float64")
def test_the_gaussians_denoiser_and_flow_are_those_of_its_process():
    t, s = torch.tensor(0.6, dtype=torch.float64), torch.tensor(0.1, dtype=torch.float64)
    on = GAUSSIAN.schedule
    x = torch.randn(32, FRAMES, 2)
    p = GAUSSIAN.teacher(x, t)
    alpha, sigma = on.alpha(t), on.sigma(t)
    V = alpha**2 * ar1() + sigma**2 * torch.eye(FRAMES)
    close(p.x0, torch.einsum("fg,bgd->bfd", alpha * ar1() @ torch.linalg.inv(V), x), 1e-10)
    scales, axes = torch.linalg.eigh(ar1())
    ratio = ((on.alpha(s) ** 2 * scales + on.sigma(s) ** 2) / (alpha**2 * scales + sigma**2)).sqrt()
    close(GAUSSIAN.flow(x, t, s), torch.einsum("fk,k,gk,bgd->bfd", axes, ratio, axes, x), 1e-10)


def test_data_of_the_gaussian():
    x, labels = GAUSSIAN.data(20_000, 0)
    assert labels is None
    assert float(x.std()) == pytest.approx(STD, abs=0.01)
    assert lag_correlation(x) == pytest.approx(RHO, abs=0.01)


def test_every_frame_of_the_ring_is_the_ring_and_only_the_label_is_the_speed():
    x, labels = TURNING.data(4000, 0)
    angle = torch.atan2(x[..., 1], x[..., 0]).diff(dim=1)
    turned = torch.atan2(angle.sin().mean(1), angle.cos().mean(1)) / (math.pi / 4)
    assert (turned - torch.tensor(SPEEDS)[labels]).abs().max() < 0.2
    own = RING.log_prob(x.flatten(0, 1)).view(-1, FRAMES).mean(0)
    assert (own - RING.log_prob(RING.sample(4000, 1)).mean()).abs().max() < 0.1
    assert TURNING.single_frames(5, 0)[0].shape == (5, 2)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("cond", [None, torch.tensor([0, 1, 2, 3])])
def test_the_rings_denoiser_is_the_slope_of_its_density(cond):
    t = torch.tensor(0.5, dtype=torch.float64)
    x = (TURNING.data(4, 0)[0].double() + torch.randn(4, FRAMES, 2)).requires_grad_()
    at = TURNING.mixture.marginal(TURNING.schedule, t)
    (score,) = torch.autograd.grad(at.log_prob(x.flatten(1), cond).sum(), x)
    close(TURNING.teacher(x.detach(), t, cond).eps, -TURNING.schedule.sigma(t) * score, 1e-9)


def broken(x, how):
    """Clips that stand still, or whose frames are in random order."""
    if how == "static":
        return x[:, :1].expand_as(x)
    order = torch.rand(x.shape[:2], generator=torch.Generator().manual_seed(0)).argsort(1)
    return x.gather(1, order[..., None].expand_as(x))


@pytest.mark.parametrize("name", SEQUENCES)
def test_clips_without_motion_fail_where_their_frames_pass(name):
    """True clips pass every measure; a static or shuffled clip passes frame by frame, and no measure of motion."""
    on = sequence(name)
    x, labels = on.data(1000, 7)

    def beyond(part):
        return (part.value - part.floor) / part.floor_std

    true = on.measure(x, labels)
    assert true.distance < true.floor + 4 * true.floor_std
    assert all(beyond(part) < 4 for part in true.parts.values())
    for how in ("static", "shuffled"):
        found = on.measure(broken(x, how), labels)
        assert beyond(found.parts["frame"]) < 4
        assert beyond(found.parts["lag-1"]) > 20
        assert beyond(found.parts["velocity"]) > 20
        if name == "ring" or how == "static":
            assert found.distance > found.floor + 6 * found.floor_std
        if labels is not None:
            assert true.accuracy > 0.99
            assert found.accuracy < 0.35


def test_wrong_clips_are_named():
    with pytest.raises(ValueError, match="shape"):
        TURNING.measure(torch.zeros(10, 16))
    with pytest.raises(ValueError, match="NaN"):
        TURNING.measure(torch.full((10, 8, 2), torch.nan))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("solver", [*SOLVERS, *PARALLEL])
def test_no_solver_knows_of_frames(solver):
    """A clip's path is that of the vector which holds its frames."""
    for on in (GAUSSIAN, TURNING):
        x = on.schedule.sigma(torch.ones(())) * torch.randn(6, FRAMES, 2)
        cond = on.eval_labels(6)
        clips, vectors = (
            solve(D, start, 5, solver=solver, cond=cond, generator=3)
            for D, start in ((on.teacher, x), (on.teacher.denoiser, x.flatten(1)))
        )
        close(clips.end.flatten(1), vectors.end, 1e-9)
        assert clips.nfe == vectors.nfe


def test_the_exact_teachers_samples_pass():
    x = torch.randn(1000, FRAMES, 2, generator=torch.Generator().manual_seed(0))
    cond = TURNING.eval_labels(1000)
    found = TURNING.measure(solve(TURNING.teacher, x, 20, cond=cond).end, cond)
    assert found.accuracy > 0.97
    assert found.parts["velocity"].value < 3 * found.parts["velocity"].floor


def test_a_deterministic_path_of_the_gaussian_is_its_flow():
    x = torch.randn(16, FRAMES, 2, generator=torch.Generator().manual_seed(0))
    end = solve(GAUSSIAN.teacher, x, 400, solver="heun").end
    assert (end - GAUSSIAN.flow(x, 1.0, 0.0)).abs().max() < 1e-3


# ---- networks


def network(**config):
    """A network of clips whose temporal layers are as at the start, and whose image network is no special one."""
    torch.manual_seed(0)
    net = ClipMLP(hidden=16, depth=2, **config)
    with torch.no_grad():
        for p in net.image.parameters():
            p.copy_(0.3 * torch.randn(p.shape))
    return net


@pytest.mark.parametrize(("config", "cond", "g"), [({}, None, None), ({"classes": 4, "guided": True}, True, True)])
def test_at_the_start_each_frame_is_the_image_networks_to_the_last_bit(config, cond, g):
    net = network(**config)
    x, lam = torch.randn(5, 8, 2), torch.randn(5)
    cond = torch.tensor([0, 1, 2, 3, 0]) if cond else None
    g = torch.full((5,), 2.0) if g else None
    out = net(x, lam, cond, g)
    assert torch.equal(out, net.image(x.flatten(0, 1), lam.repeat_interleave(8)).view_as(x))
    assert bool((out != 0).all())
    with torch.no_grad():
        net.temporal[0].out.weight.normal_()
    assert not torch.equal(out, net(x, lam, cond, g))


def test_temporal_layers_join_frames_of_one_clip_and_of_no_other():
    net = network()
    with torch.no_grad():
        for layer in net.temporal:
            layer.out.weight.normal_()
    x, lam = torch.randn(3, 8, 2), torch.randn(3)
    changed = x.clone()
    changed[0, 7] += 1
    moved = (net(changed, lam) - net(x, lam)).abs().amax(-1) > 1e-6
    assert moved[0].all()
    assert not moved[1:].any()
    assert net.features(x, lam).shape == (3, net.feature_width)


def test_a_low_rank_adapter_is_on_the_image_network_alone_and_adds_nothing_at_first():
    net = network(rank=2)
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    own = {name for name in trained if name.startswith("image.")}
    assert own == {n for n, _ in net.named_parameters() if n.startswith("image.") and n.endswith((".up", ".down"))}
    assert trained - own == {n for n, _ in net.named_parameters() if not n.startswith("image.")}
    again = ClipMLP(**net.config)
    again.load_state_dict(net.state_dict())
    x, lam = torch.randn(3, 8, 2), torch.randn(3)
    assert torch.equal(again(x, lam), net(x, lam))


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"rank": -1}, {"dim": 0}, {"hidden": 1.5}, {"hidden": 18}])
def test_wrong_sizes(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ClipMLP(**wrong)
    with pytest.raises(ValueError, match=r"clips \(B, 8, 2\)"):
        ClipMLP()(torch.zeros(3, 7, 2), torch.zeros(3))
