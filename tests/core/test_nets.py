"""Networks: given the noise level and nothing else of the schedule, labels and guidance as they should be, finite at
both ends.
"""

import pytest
import torch
from cases import ALL_SCHEDULES, VARIANCE_PRESERVING, Spy, close, f64, inner, normal
from torch import nn

from toydiff import Conditioned, Counted, Denoiser, Guided, Prediction, Rescheduled, solve
from toydiff.denoisers import NO_CLASS, LambdaDenoiser, NetDenoiser
from toydiff.nets import MLP, UNet
from toydiff.nets.embedding import Embedding
from toydiff.nets.unet import Attention
from toydiff.problems.classifier import Classifier, moved
from toydiff.weights.networks import NETS as BY_NAME
from toydiff.weights.networks import make_net, name_of

POINTS, IMAGES = (2,), (1, 8, 8)


def stirred(net, seed=0, size=0.05):
    """Networks start as zero; this one has learnt something, in float64."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.double().parameters():
            p.add_(size * torch.randn(p.shape, generator=rng, dtype=torch.float64))
    return net


def mlp(**changes):
    return stirred(MLP(**{"hidden": 16, "depth": 2} | changes))


def unet(**changes):
    return stirred(UNet(**{"widths": (8, 16), "embedding": 16} | changes))


def attentive(**changes):
    return unet(**{"widths": (8, 32), "middle": 2, "attention": True} | changes)


NETS = {"mlp": (mlp, POINTS), "unet": (unet, IMAGES), "unet with attention": (attentive, IMAGES)}


@pytest.fixture(params=NETS)
def family(request):
    return NETS[request.param]


# ---- the noise level


@torch.no_grad()
@pytest.mark.parametrize("kind", ["x0", "eps"])
def test_one_network_believes_the_same_on_every_schedule(family, kind, schedule):
    """At equal NSR, at states that are one state: z = x/alpha."""
    make, shape = family
    net = make(classes=3)
    cond = torch.tensor([0, 1, 2, NO_CLASS, 1])
    lams = (-2.5, -1.0, 0.0, 1.5, 4.0)
    z = 0.5 * normal(5, *shape)
    predictions = []
    for on in (ALL_SCHEDULES["vp"], schedule):
        t = inner(on, *lams)
        alpha = on.alpha(t).reshape(-1, *[1] * len(shape))
        predictions.append(LambdaDenoiser(net, on, kind)(alpha * z, t, cond))
    close(predictions[1].x0, predictions[0].x0, 1e-12)
    close(predictions[1].eps, predictions[0].eps, 1e-12)
    assert (predictions[0].x0 - predictions[0].x0.mean(0)).abs().max() > 0.01


@torch.no_grad()
@pytest.mark.parametrize("name", VARIANCE_PRESERVING)
def test_and_v_on_the_schedules_that_it_is_made_for(name):
    net, z = mlp(), normal(3, 2)
    one, other = ALL_SCHEDULES["cosine"], ALL_SCHEDULES[name]
    predictions = []
    for on in (one, other):
        t = inner(on, -2.0, 0.0, 2.0)
        predictions.append(LambdaDenoiser(net, on, "v")(on.alpha(t)[:, None] * z, t))
    close(predictions[1].x0, predictions[0].x0, 1e-12)


@torch.no_grad()
@pytest.mark.parametrize("name", ["cosine", "linear", "ve", "user"])
def test_rescheduling_is_another_schedule_for_the_same_network(name):
    net, x = mlp(), normal(3, 2)
    on = ALL_SCHEDULES[name]
    t = inner(on, -2.0, 0.0, 2.0)
    moved_ = Rescheduled(LambdaDenoiser(net, ALL_SCHEDULES["vp"], "eps"), on)(x, t)
    close(moved_.x0, LambdaDenoiser(net, on, "eps")(x, t).x0, 1e-10)


def test_a_network_given_the_time_is_not_the_same_on_every_schedule():
    """The negative control: the same comparison with a network of x and t."""

    class OfTime(nn.Module):
        def forward(self, x, t):
            return x * t[:, None]

    z = normal(3, 2)
    predictions = []
    for name in ("vp", "cosine"):
        on = ALL_SCHEDULES[name]
        t = inner(on, -2.0, 0.0, 2.0)
        predictions.append(NetDenoiser(OfTime(), on, "x0")(on.alpha(t)[:, None] * z, t).x0)
    assert (predictions[0] - predictions[1]).abs().max() > 0.1


def test_the_noise_level_matters(family):
    make, shape = family
    D = LambdaDenoiser(make(), ALL_SCHEDULES["vp"], "x0")
    x = normal(1, *shape).expand(20, *shape)
    out = D(x, torch.linspace(0.05, 0.95, 20).double()).x0.flatten(1)
    assert (out[1:] - out[:-1]).abs().max(1).values.min() > 1e-4


@pytest.mark.parametrize("kind", ["x0", "v", "preconditioned"])
def test_both_ends_are_finite_and_so_are_their_gradients(family, kind, schedule):
    """lambda is infinite where alpha or sigma is 0, and clamped."""
    make, shape = family
    D = LambdaDenoiser(make(classes=3, guided=True), schedule, kind)
    x = normal(3, *shape).requires_grad_()
    p = D(x, f64([0.0, 0.5, 1.0]), torch.tensor([0, NO_CLASS, 2]), f64([1.0, 2.0, 0.5]))
    assert torch.isfinite(p.x0).all()
    assert torch.isfinite(p.eps).all()
    gradients = torch.autograd.grad(p.x0.square().sum(), [x, *D.parameters()], allow_unused=True)
    assert all(torch.isfinite(g).all() for g in gradients if g is not None)
    assert sum(g is not None for g in gradients) == len(gradients)
    assert gradients[0].abs().max() > 0


def test_beyond_the_clamp_nothing_changes():
    net, x = mlp(), normal(2, 2)
    far = net(x, f64([-7.0, 7.0]))
    assert torch.equal(net(x, f64([-torch.inf, torch.inf])), far)
    assert torch.equal(net(x, f64([-9.0, 70.0])), far)
    assert not torch.equal(net(x, f64([-6.9, 6.9])), far)


def test_a_fresh_network_predicts_zero_and_its_output_is_trained_from_there(family):
    make, shape = family
    net = type(make())(**({"hidden": 8, "depth": 1} if make is mlp else {"widths": (8, 8), "embedding": 8}))
    x = torch.randn(3, *shape)
    out = net(x, torch.tensor([-1.0, 0.0, 1.0]))
    assert torch.equal(out, torch.zeros_like(x))
    loss = (out - x).square().mean()
    grads = [g for g in torch.autograd.grad(loss, list(net.parameters()), allow_unused=True) if g is not None]
    assert max(float(g.abs().max()) for g in grads) > 0


@torch.no_grad()
@pytest.mark.parametrize("n", [1, 2, 5])
def test_samples_of_a_batch_do_not_see_each_other(family, n):
    make, shape = family
    net = make(classes=3, guided=True)
    x, lam, cond, g = normal(5, *shape), f64([-2, -1, 0, 1, 2]), torch.tensor([0, 1, 2, -1, 0]), f64([1, 2, 3, 4, 5])
    whole = net(x, lam, cond, g)
    close(net(x[:n], lam[:n], cond[:n], g[:n]), whole[:n], 1e-12)


# ---- labels


@torch.no_grad()
def test_no_class_is_no_condition(family):
    make, shape = family
    D = LambdaDenoiser(make(classes=4), ALL_SCHEDULES["cosine"], "v")
    x, t = normal(4, *shape), f64([0.1, 0.4, 0.7, 1.0])
    without = D(x, t).x0
    assert torch.equal(D(x, t, torch.full((4,), NO_CLASS)).x0, without)
    given = D(x, t, torch.tensor([0, 1, 2, 3])).x0
    mixed = D(x, t, torch.tensor([0, NO_CLASS, 2, NO_CLASS])).x0
    close(mixed[[0, 2]], given[[0, 2]], 1e-13)
    close(mixed[[1, 3]], without[[1, 3]], 1e-13)
    assert all((given[i] - without[i]).abs().max() > 1e-4 for i in range(4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: mlp(classes=3)(normal(2, 2), f64([0, 0]), torch.tensor([0, 3])),
            r"labels are 0 \.\.\. 2, or -1 for none; got values from 0 to 3",
        ),
        (lambda: mlp(classes=3)(normal(2, 2), f64([0, 0]), torch.tensor([-2, 0])), "got values from -2 to 0"),
        (
            lambda: mlp(classes=3)(normal(2, 2), f64([0, 0]), torch.tensor([0])),
            r"cond must have shape \(2,\), one label a sample, got \(1,\)",
        ),
        (lambda: mlp()(normal(2, 2), f64([0, 0]), torch.tensor([0, 1])), "was made without classes"),
        (
            lambda: mlp()(normal(2, 2), f64([0, 0]), None, f64([1, 2])),
            "does not see a guidance scale; make it with guided=True",
        ),
        (
            lambda: mlp(guided=True)(normal(2, 2), f64([0, 0]), None, f64([1, 0])),
            "a network sees guidance scales > 0, got one of 0; 1 is off",
        ),
        (lambda: MLP(dim=0), "dim must be a whole number >= 1, got 0"),
        (lambda: MLP(hidden=1.5), "hidden must be a whole number >= 1, got 1.5"),
        (lambda: MLP(classes=-1), "classes must be a whole number >= 0, got -1"),
        (lambda: UNet(widths=(8, 12)), r"widths must be multiples of 8, got \(8, 12\)"),
        (lambda: UNet(blocks=0), "blocks must be a whole number >= 1, got 0"),
        (lambda: UNet(middle=0), "middle must be a whole number >= 1, got 0"),
        (
            lambda: UNet(widths=(8, 40), attention=True),
            "with attention the lower width must be a multiple of 32, got 40",
        ),
        (
            lambda: unet()(normal(2, 3, 8, 8), f64([0, 0])),
            r"takes images \(B, 1, H, W\) with H and W multiples of 4, got \(2, 3, 8, 8\)",
        ),
        (lambda: unet()(normal(2, 1, 8, 6), f64([0, 0])), r"multiples of 4, got \(2, 1, 8, 6\)"),
        (lambda: unet()(normal(2, 64), f64([0, 0])), r"got \(2, 64\)"),
        (
            lambda: make_net("unett", {}),
            rf"unknown network 'unett' \(did you mean 'unet'\?\); allowed: {', '.join(BY_NAME)}",
        ),
        (lambda: make_net("mlp", {"wide": 3}), "the network 'mlp' cannot be made: .*'wide'"),
        (
            lambda: name_of(nn.Linear(2, 2)),
            rf"a checkpoint holds networks of toydiff \({', '.join(BY_NAME)}\) and UNets of diffusers, got Linear",
        ),
        (lambda: Classifier().features(normal(2, 28, 28)), r"digits have shape \(B, 1, 28, 28\), got \(2, 28, 28\)"),
    ],
)
def test_bad_input_is_one_line(make, message):
    with pytest.raises(ValueError, match=message) as found:
        make()
    assert "\n" not in str(found.value)


# ---- the guidance scale as an input


def test_guidance_does_nothing_before_it_is_trained_and_nothing_at_one(family):
    make, shape = family
    x, lam, cond = normal(3, *shape), f64([-1, 0, 1]), torch.tensor([0, 1, NO_CLASS])
    fresh = make(classes=2, guided=True)
    with torch.no_grad():
        fresh.embed.guidance.weight.zero_()
    plain = fresh(x, lam, cond)
    assert torch.equal(fresh(x, lam, cond, f64([0.3, 1.0, 8.0])), plain)
    trained = make(classes=2, guided=True)
    assert torch.equal(trained(x, lam, cond, f64([1, 1, 1])), trained(x, lam, cond))
    moved_ = (trained(x, lam, cond, f64([0.3, 1.0, 8.0])) - trained(x, lam, cond)).flatten(1).abs().max(1).values
    assert moved_[1] == 0
    assert moved_[[0, 2]].min() > 1e-4


def test_the_guidance_input_starts_at_zero_and_can_learn():
    embedding = Embedding(8, guided=True)
    assert torch.equal(embedding.guidance.weight, torch.zeros_like(embedding.guidance.weight))
    out = embedding(torch.zeros(2), None, torch.tensor([2.0, 3.0]))
    (gradient,) = torch.autograd.grad(out.sum(), [embedding.guidance.weight])
    assert gradient.abs().max() > 0.01
    off = embedding(torch.zeros(2), None, torch.tensor([1.0, 1.0]))
    (gradient,) = torch.autograd.grad(off.sum(), [embedding.guidance.weight])
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("solver", ["ddim", "dpm++2m", "heun"])
def test_a_student_that_sees_the_scale_is_guided_in_one_call(solver):
    student = LambdaDenoiser(mlp(classes=3, guided=True), ALL_SCHEDULES["vp"], "eps")
    blind = LambdaDenoiser(mlp(classes=3), ALL_SCHEDULES["vp"], "eps")
    x, cond = normal(6, 2), torch.arange(6) % 3
    once = solve(student, x, 4, solver=solver, cond=cond)
    seen = solve(student, x, 4, solver=solver, cond=cond, guidance_scale=3.0)
    twice = solve(blind, x, 4, solver=solver, cond=cond, guidance_scale=3.0)
    assert seen.nfe == once.nfe
    assert twice.nfe == 2 * seen.nfe
    assert (seen.end - once.end).abs().max() > 1e-3
    counted = Counted(student)
    solve(counted, x, 4, solver=solver, cond=cond, guidance_scale=3.0)
    assert counted.nfe == counted.rounds == seen.nfe


@torch.no_grad()
def test_a_scale_conditioned_model_gets_the_scale_through_every_wrapper():
    net = mlp(classes=3, guided=True)
    D = LambdaDenoiser(net, ALL_SCHEDULES["cosine"], "v")
    x, t, cond = normal(3, 2), f64([0.2, 0.5, 0.9]), torch.tensor([0, 1, 2])
    lam = D.schedule.lam(t)
    direct = Prediction.of("v", net(x, lam, cond, f64([2.5, 2.5, 2.5])), x, t, D.schedule).x0  # S = 1 on this schedule
    close(D(x, t, cond, f64([2.5, 2.5, 2.5])).x0, direct, 1e-12)
    conditioned = D(x, t, cond, 2.5).x0
    close(conditioned, direct, 1e-12)
    assert torch.equal(Counted(D)(x, t, cond, 2.5).x0, conditioned)
    assert torch.equal(Conditioned(D, cond, 2.5)(x, t).x0, conditioned)
    close(Rescheduled(D, ALL_SCHEDULES["vp"])(x, f64([0.2, 0.3, 0.4]), cond, 2.5).x0,
          Rescheduled(Conditioned(D, cond, 2.5), ALL_SCHEDULES["vp"])(x, f64([0.2, 0.3, 0.4])).x0, 1e-12)  # fmt: skip
    assert torch.equal(D(x, t, cond, 1.0).x0, D(x, t, cond).x0)
    assert torch.equal(D(x, t, cond, 0.0).x0, D(x, t).x0)
    assert [D.calls_at(g) for g in (0, 1, 2.5)] == [1, 1, 1]
    assert [LambdaDenoiser(mlp(classes=3), D.schedule).calls_at(g) for g in (0, 1, 2.5, f64([2.0]))] == [1, 1, 2, 2]


class HandsOn(Denoiser):
    """A wrapper of a user that hands the scale on."""

    def __init__(self, denoiser):
        super().__init__(denoiser.schedule, denoiser.kind)
        self.denoiser = denoiser

    def forward(self, x, t, cond=None, guidance_scale=1.0):
        return self.denoiser(x, t, cond, guidance_scale)


def test_a_scale_conditioned_model_is_never_guided_twice():
    D = LambdaDenoiser(mlp(classes=3, guided=True), ALL_SCHEDULES["cosine"], "v")
    x, cond = normal(3, 2), torch.tensor([0, 1, 2])
    for wrapped in (D, Counted(D), Rescheduled(D, ALL_SCHEDULES["vp"]), Counted(Counted(D))):
        assert wrapped.scale_conditioned
        with pytest.raises(
            ValueError, match=r"conditioned on the guidance scale, .* would guide it twice: call it as D\(x, t, cond"
        ):
            Guided(wrapped, 2.0)
    # a wrapper of a user that hands the scale on costs what the model inside does
    counted = Counted(HandsOn(D))
    p = counted(x, 0.5, cond, 2.0)
    assert torch.equal(p.x0, D(x, 0.5, cond, 2.0).x0)
    assert counted.nfe == HandsOn(D).calls_at(2.0) == 1
    assert HandsOn(LambdaDenoiser(mlp(classes=3), D.schedule)).calls_at(2.0) == 2
    # and one that does not
    with pytest.raises(ValueError, match="Spy holds a model that is conditioned on the guidance scale"):
        Spy(D)(x, 0.5, cond, 2.0)
    with pytest.raises(ValueError, match="would guide it twice"):
        solve(Spy(D), x, 3, cond=cond, guidance_scale=2.0)
    assert torch.isfinite(Spy(D)(x, 0.5, cond).x0).all()


class Both(torch.nn.Module):
    """A network that makes both sides of guidance in one call of twice the batch, and counts its calls."""

    batches_guidance = True

    def __init__(self, net):
        super().__init__()
        self.net, self.count, self.config = net, 0, net.config

    def forward(self, x, lam, cond, guidance_scale):
        self.count += 1
        return self.net(x, lam, cond, guidance_scale)


@torch.no_grad()
def test_both_sides_in_one_call_are_the_two_calls():
    net, on = mlp(classes=3), ALL_SCHEDULES["cosine"]
    both, plain = LambdaDenoiser(Both(net), on, "v"), LambdaDenoiser(net, on, "v")
    x, cond = normal(3, 2), torch.tensor([0, 1, 2])
    for t, g in ((f64([0.2, 0.5, 0.9]), 3.0), (f64(0.4), f64([1.5, 2.0, 3.0]))):
        before = both.net.count
        close(both(x, t, cond, g).x0, plain(x, t, cond, g).x0, 1e-12)
        close(both(x, t, cond, g).eps, plain(x, t, cond, g).eps, 1e-12)
        assert both.net.count == before + 2  # of the two evaluations above, one call each
        assert both.calls_at(g) == 2  # of half the size


# ---- attention


@torch.no_grad()
def test_attention_is_a_softmax_over_positions():
    """Against the formula, head by head, with the channels of a picture as the reader of the formula would order
    them."""
    layer, x = stirred(Attention(64), size=0.3), normal(2, 64, 3, 5)
    h = layer.norm(x).reshape(2, 64, 15)
    q, k, v = (torch.einsum("oc,bcn->bon", w, h) + b[:, None] for w, b in zip(
        layer.qkv.weight.chunk(3), layer.qkv.bias.chunk(3), strict=True))  # fmt: skip
    heads = []
    for i in (slice(0, 32), slice(32, 64)):
        weight = torch.softmax(torch.einsum("bcn,bcm->bnm", q[:, i], k[:, i]) / 32**0.5, 2)
        heads.append(torch.einsum("bnm,bcm->bcn", weight, v[:, i]))
    out = torch.einsum("oc,bcn->bon", layer.out.weight, torch.cat(heads, 1)) + layer.out.bias[:, None]
    close(layer(x), x + out.reshape(x.shape), 1e-12)


def test_attention_starts_as_the_identity_and_then_sees_the_whole_image():
    x = normal(1, 32, 4, 4)
    assert torch.equal(Attention(32).double()(x), x)
    x.requires_grad_()
    seen = torch.autograd.grad(stirred(Attention(32), size=0.3)(x)[0, :, 0, 0].sum(), x)[0]
    assert (seen.abs().amax((0, 1)) > 0).all()


# ---- made again from what a file says


def test_a_network_is_made_again_from_its_config(family):
    make, shape = family
    net = make(classes=3, guided=True)
    again = make_net(name_of(net), net.config).double()
    again.load_state_dict(net.state_dict())
    x, lam, cond, g = normal(2, *shape), f64([-1, 1]), torch.tensor([0, 2]), f64([2, 3])
    assert torch.equal(again(x, lam, cond, g), net(x, lam, cond, g))


def test_sizes():
    def weights(net):
        return sum(p.numel() for p in net.parameters())

    assert 300_000 <= weights(UNet(classes=10)) <= 1_000_000
    assert weights(MLP(classes=8)) < 200_000


# ---- the classifier


def test_moving_images():
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(3, 1, 28, 28, generator=rng) * 2 - 1
    still = moved(images, torch.zeros(3, 2), torch.zeros(3), torch.ones(3))
    assert (still - images).abs().max() < 1e-4
    one_pixel = moved(images, torch.tensor([[2 / 28, 0.0]] * 3), torch.zeros(3), torch.ones(3))
    assert (one_pixel[..., :-1] - images[..., 1:]).abs().max() < 1e-4
    assert (one_pixel[..., -1] + 1).abs().max() < 1e-4  # paper
    turned = moved(images, torch.zeros(3, 2), torch.full((3,), torch.pi / 2), torch.ones(3))
    assert min(float((turned - torch.rot90(images, k, (2, 3))).abs().max()) for k in (1, 3)) < 1e-4
    half = moved(images, torch.zeros(3, 2), torch.zeros(3), torch.full((3,), 0.5))
    assert (half[..., 0, :] + 1).abs().max() < 1e-4  # half as large: paper around it


def test_looking_does_not_depend_on_chunks_or_on_the_batch():
    net, images = Classifier().train(), torch.randn(7, 1, 28, 28)
    features, classes = net.features_of(images)
    again, classes_again = net.features_of(images, chunk=2)
    torch.testing.assert_close(again, features)
    assert torch.equal(classes, classes_again)
    assert torch.equal(classes, net(images).argmax(1))
    assert features.shape == (7, 64)
