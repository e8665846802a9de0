"""Each method's loss is a function of tensors, denoisers, a distance and draws: called alone, it is what a training
minimises; and the form of these files.
"""

import ast
import importlib
import inspect
import io
import pkgutil
import re
import tokenize
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from cases import RING
from students import pairs_of
from tiny import TinyDigits, TinyMixture
from torch import Tensor, nn

from toydiff import Denoiser, Linear, jump, schedule, time_grid
from toydiff import distill as package
from toydiff.catalog import METHODS, TOKEN_METHODS
from toydiff.denoisers import LambdaDenoiser
from toydiff.distill.adversarial import adversarial_loss, discriminator_loss
from toydiff.distill.cd import cd_loss
from toydiff.distill.ct import ct_loss, lognormal_mass
from toydiff.distill.diffusion import diffusion_loss
from toydiff.distill.distances import distance
from toydiff.distill.dmd import dmd_loss
from toydiff.distill.dmd2 import dmd2_discriminator_loss, dmd2_loss
from toydiff.distill.ect import ect_loss
from toydiff.distill.flow_matching import flow_matching_loss
from toydiff.distill.generator import own_state
from toydiff.distill.guided import guided_loss
from toydiff.distill.instaflow import instaflow_loss
from toydiff.distill.lcm import lcm_loss
from toydiff.distill.multistep import multistep_loss
from toydiff.distill.naive import naive_loss
from toydiff.distill.pcm import pcm_discriminator_loss, pcm_loss
from toydiff.distill.perflow import perflow_loss
from toydiff.distill.progressive import progressive_loss
from toydiff.distill.rectified_diffusion import own_mse, rectified_diffusion_loss
from toydiff.distill.rectified_diffusion_phased import rectified_diffusion_phased_loss
from toydiff.distill.rectified_flow import rectified_flow_loss
from toydiff.distill.sct import sct_loss
from toydiff.distill.sim import huber_slope, sim_loss
from toydiff.distill.vsd import kl_weight, sigma2_weight, vsd_loss
from toydiff.nets import MLP, UNet
from toydiff.nets.discriminator import Discriminator
from toydiff.schedules import PiecewiseLinear
from toydiff.solvers.heun import Heun
from toydiff.solvers.lcm import LCM
from toydiff.training import Draws

B, STEP, UPDATES = 8, 3, 10
"""The batch, and the update at which a loss is taken, of how many."""


@dataclass
class Players:
    """What losses are functions of. data(n, generator) -> samples and labels; by_class: whether samples are requested
    by label.

    before: the student as it was, before the training or before its stage.
    """

    student: Denoiser
    teacher: Denoiser
    target: Denoiser | None
    fake: Denoiser | None
    before: Denoiser | None
    D: Discriminator | None
    data: Callable
    pairs: object
    by_class: bool

    def batch(self, draws, labelled=False) -> tuple[Tensor, Tensor | None]:
        x0, label = draws.rows(self.data, B)
        return x0, label if labelled or self.by_class else None

    def noise(self, draws, guided=False) -> tuple[Tensor, Tensor | None]:
        cond = draws.rows(lambda n, rng: self.data(n, rng)[1], B) if guided or self.by_class else None
        return self.student.schedule.sigma(torch.ones(())) * draws.normal(B, *self.pairs.x0.shape[1:]), cond

    def one_step(self, draws, guided=False) -> tuple[Tensor, Tensor | None]:
        found = self.noise(draws, guided)
        draws.integers(B, 1)
        return found

    def made(self, draws, guided=False) -> tuple[Tensor, Tensor | None]:
        z, cond = self.one_step(draws, guided)
        with torch.no_grad():
            return jump(self.student(z, 1.0, cond), 0.0), cond

    def own(self, draws, steps) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor | None]:
        z, cond = self.noise(draws)
        return own_state(self.student, LCM(), torch.linspace(1, 0, steps + 1), z, cond, draws), cond

    def drawn(self, draws) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.pairs.draw(self.student.schedule, B, draws)


# ---- a method's loss, of the student and of the one that is trained beside it, from what a training draws for it


def _diffusion(p, draws):
    return diffusion_loss(p.student, *p.batch(draws, True), draws, 0.1)


def _flow_matching(p, draws):
    return flow_matching_loss(p.student, *p.batch(draws, True), draws, 0.1)


def _naive(p, draws):
    return naive_loss(p.student, *p.drawn(draws), draws)


def _guided(p, draws):
    return guided_loss(p.student, p.teacher, *p.batch(draws, True), draws, 1.0, 5.0)


def _progressive(p, draws):
    return progressive_loss(p.student, p.teacher, 16, *p.batch(draws), draws)


def _progressive_later(p, draws):
    return progressive_loss(p.student, p.before, 8, *p.batch(draws), draws)


def _rectified_flow(p, draws):
    return rectified_flow_loss(p.student, *p.drawn(draws), draws, 0.25)


def _instaflow(p, draws):
    return instaflow_loss(p.student, *p.drawn(draws), draws)


def _rectified_diffusion(p, draws):
    return rectified_diffusion_loss(p.student, *p.drawn(draws), draws, 0.25)


def _rectified_diffusion_own_mse(p, draws):
    return rectified_diffusion_loss(p.student, *p.drawn(draws), draws, compare=own_mse)


def _perflow(p, draws):
    return perflow_loss(p.student, p.teacher, 4, 2, *p.batch(draws), draws, 0.5)


def _rectified_diffusion_phased(p, draws):
    return rectified_diffusion_phased_loss(p.student, p.teacher, 4, 2, *p.batch(draws), draws, 0.5)


def _cd(p, draws):
    times = time_grid(p.teacher.schedule, 40, "karras").flip(0).float()
    return cd_loss(p.student, p.target, p.teacher, Heun(), times, distance("l2"), *p.batch(draws), draws)


def _ct(p, draws):
    on = p.student.schedule
    times = time_grid(on, 20, "karras").flip(0)  # a doubled grid at this update
    mass, weights = lognormal_mass(on, times, -1.1, 2.0), 1 / on.nsr(times.float()).diff()
    upto, d = mass.cumsum(0) / mass.sum(), distance("huber", 0.01)
    return ct_loss(p.student, p.target, times.float(), upto, weights, d, *p.batch(draws), draws)


def _ect(p, draws):
    return ect_loss(p.student, p.target, distance("huber"), *p.batch(draws), draws, 8 * STEP // UPDATES)


def _sct(p, draws):
    return sct_loss(p.student, p.target, distance("huber"), *p.batch(draws), draws, 8 * STEP // UPDATES)


def _multistep(p, draws):
    d, N = distance("huber", 0.03), round(8 * 8 ** (STEP / UPDATES))
    return multistep_loss(p.student, p.target, p.teacher, 4, N, d, *p.batch(draws), draws, 0.25)


def _lcm(p, draws):
    d = distance("element-huber")
    return lcm_loss(p.student, p.target, p.teacher, 50, d, *p.batch(draws, True), draws, 1.5, 4.0)


def _pcm(p, draws):
    d = distance("element-huber")
    settings = {"g_min": 1.5, "g_max": 4.0, "D": p.D, "adversarial": 0.1}
    return pcm_loss(p.student, p.target, p.teacher, 40, 4, d, *p.batch(draws, True), draws, **settings)


def _pcm_discriminator(p, draws):
    return pcm_discriminator_loss(p.D, p.student, p.target, p.teacher, 40, 4, *p.batch(draws, True), draws, 1.5, 4.0)


def _vsd(p, draws):
    return vsd_loss(p.student, p.teacher, p.fake, kl_weight, *p.one_step(draws, True), draws, 2.0)


def _fake_of_guided(p, draws):
    return diffusion_loss(p.fake, *p.made(draws, True), draws)


def _swiftbrush(p, draws):
    return vsd_loss(p.student, p.teacher, p.fake, sigma2_weight, *p.one_step(draws), draws)


def _fake(p, draws):
    return diffusion_loss(p.fake, *p.made(draws), draws)


def _dmd(p, draws):
    loss = dmd_loss(p.student, p.teacher, p.fake, *p.one_step(draws), draws)
    return loss + 0.25 * naive_loss(p.student, *p.drawn(draws), draws)


def _dmd2(p, draws):
    (x_k, t_k, _), cond = p.own(draws, 2)
    return dmd2_loss(p.student, p.teacher, p.fake, p.D, x_k, t_k, cond, draws, 0.5)


def _dmd2_fake(p, draws):
    def made():
        (x_k, t_k, _), cond = p.own(draws, 2)
        with torch.no_grad():
            return jump(p.student(x_k, t_k, cond), 0.0), cond

    samples, data = made(), p.batch(draws)
    told_apart = dmd2_discriminator_loss(p.D, p.teacher.schedule, *samples, *data, draws)
    return diffusion_loss(p.fake, *made(), draws) + 0.5 * told_apart


def _sim(p, draws):
    return sim_loss(p.student, p.teacher, p.fake, huber_slope, *p.one_step(draws), draws)


def _adversarial(p, draws):
    state, cond = p.own(draws, 2)
    return adversarial_loss(p.student, p.before, p.D, *state, cond, draws, 0.5, 2.0, 0.3)


def _adversarial_discriminator(p, draws):
    state, cond = p.own(draws, 2)
    return discriminator_loss(p.D, p.student, *state, cond, *p.batch(draws), draws, 0.5, 0.1)


LOSSES = {
    "diffusion": (_diffusion,),
    "flow-matching": (_flow_matching,),
    "naive": (_naive,),
    "guided": (_guided,),
    "progressive": (_progressive,),
    "progressive, its second stage": (_progressive_later,),
    "rectified-flow": (_rectified_flow,),
    "instaflow": (_instaflow,),
    "rectified-diffusion": (_rectified_diffusion,),
    "rectified-diffusion, own-mse": (_rectified_diffusion_own_mse,),
    "perflow": (_perflow,),
    "rectified-diffusion-phased": (_rectified_diffusion_phased,),
    "cd": (_cd,),
    "ct": (_ct,),
    "ect": (_ect,),
    "sct": (_sct,),
    "multistep-consistency": (_multistep,),
    "lcm": (_lcm,),
    "pcm": (_pcm, _pcm_discriminator),
    "vsd": (_vsd, _fake_of_guided),
    "swiftbrush": (_swiftbrush, _fake),
    "dmd": (_dmd, _fake),
    "dmd2": (_dmd2, _dmd2_fake),
    "sim": (_sim, _fake),
    "adversarial": (_adversarial, _adversarial_discriminator),
}
"""By method, a loss for each turn of an update."""

KNOBS = {
    "progressive": {"updates": 5 * UPDATES},
    "rectified-flow": {"edge": 0.25},
    "rectified-diffusion": {"edge": 0.25},
    "rectified-diffusion, own-mse": {"loss": "own-mse"},
    "perflow": {"substeps": 2},
    "rectified-diffusion-phased": {"substeps": 2},
    "cd": {"target_ema": 0.5},
    "ct": {"curriculum": "ict"},
    "ect": {"target_ema": 0.5},
    "sct": {"target_ema": 0.5},
    "multistep-consistency": {"target_ema": 0.5},
    "lcm": {"g_min": 1.5, "g_max": 4.0},
    "pcm": {"g_min": 1.5, "g_max": 4.0, "adversarial": 0.1, "target_ema": 0.5},
    "vsd": {"guidance_scale": 2.0},
    "dmd2": {"steps": 2, "gan": 0.5, "gan_fake": 0.5},
    "adversarial": {"steps": 2, "reach": 0.5, "adversarial": 2.0, "keep": 0.3, "r1": 0.1},
}
"""The knobs with which a training minimises these, where they are not the usual ones; the target is never the student
itself.
"""


def disturbed(module: nn.Module, seed: int) -> nn.Module:
    """The module, with weights that are nothing special: networks start as zero, and copies as what they copy."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(0.2 * torch.randn(p.shape, generator=rng))
    return module


def noise_pairs(shape, classes):
    """Pairs of noise and anything."""
    rng = torch.Generator().manual_seed(5)
    noise, x0 = (torch.randn(20, *shape, generator=rng) for _ in range(2))
    return pairs_of(noise, x0, torch.arange(20) % classes if classes else None)


# ---- alone


def on_points(method):
    """Players in the plane: an exact teacher, and networks."""
    return by_hand(
        method,
        lambda guided=False: MLP(2, hidden=16, depth=1, classes=8, guided=guided),
        RING.denoiser(schedule("scaled-linear"), "eps"),
        RING.sample_labelled,
        noise_pairs((2,), 0),
        False,
    )


def on_images(method):
    """Players on (B, 1, 28, 28): networks alone."""

    def net(guided=False):
        return UNet(widths=(8, 16), embedding=16, classes=10, guided=guided)

    def data(n, rng):
        return torch.randn(n, 1, 28, 28, generator=rng), torch.arange(n) % 10

    teacher = LambdaDenoiser(disturbed(net(), 1), schedule("scaled-linear"), "eps").requires_grad_(False)
    return by_hand(method, net, teacher, data, noise_pairs((1, 28, 28), 10), True)


def by_hand(method, net, teacher, data, pairs, by_class) -> Players:
    flow, on = method in ("flow-matching", "rectified-flow", "instaflow"), teacher.schedule
    if method == "perflow":
        on = PiecewiseLinear(on, torch.linspace(0, 1, 5))

    def denoiser(seed):
        inner = disturbed(net(guided=method in ("guided", "lcm")), seed)
        return LambdaDenoiser(inner, Linear() if flow else on, "velocity" if flow else "v")

    fake = denoiser(4)
    D = Discriminator.shared(fake) if method == "dmd2" else Discriminator(net(), on)
    return Players(denoiser(2), teacher, denoiser(3), fake, denoiser(5), disturbed(D, 6), data, pairs, by_class)


def moved(p: Players, turn: int) -> list[nn.Parameter]:
    """What a turn moves: the student's weights, or those of whoever is trained beside it."""
    return list((p.student if turn == 0 else nn.ModuleList([p.fake, p.D])).parameters())


@pytest.mark.slow
@pytest.mark.parametrize("make", [on_points, on_images])
@pytest.mark.parametrize("method", LOSSES)
def test_a_loss_needs_no_problem_and_no_knobs(method, make):
    for turn, loss_of in enumerate(LOSSES[method]):
        p = make(method)
        loss = loss_of(p, Draws(1))
        assert loss.ndim == 0
        assert bool(torch.isfinite(loss))
        found = [g for g in torch.autograd.grad(loss, moved(p, turn), allow_unused=True) if g is not None]
        assert all(bool(torch.isfinite(g).all()) for g in found)
        assert any(bool((g != 0).any()) for g in found)


# ---- in training


@pytest.mark.parametrize("make", [TinyMixture, TinyDigits])
@pytest.mark.parametrize("method", LOSSES)
def test_a_training_minimises_that_loss(method, make):
    problem, card = make(), METHODS[method.partition(",")[0]]
    pairs = noise_pairs(problem.shape, problem.classes if problem.conditional else 0)
    knobs = card.knobs(**{"batch": B, "updates": UPDATES} | KNOBS.get(method, {}))
    training = card.train(
        problem, knobs, None if card.needs == "nothing" else problem.teacher, pairs if card.needs == "pairs" else None
    )
    for k, module in enumerate(training.state().values()):
        disturbed(module, k)
    modules = {**training.targets, **training.modules}
    fake, D, target, stage = (modules.get(name) for name in ("fake", "discriminator", "target", "teacher"))
    if "head" in modules:
        D = Discriminator.shared(fake)
        D.head = modules["head"]
    p = Players(
        training.student,
        problem.teacher,
        getattr(target, "module", None),
        fake,
        getattr(stage, "module", modules.get("before")),
        D,
        problem.data,
        pairs,
        problem.conditional,
    )
    assert len(training.turns) == len(LOSSES[method])
    for turn, loss_of in zip(training.turns, LOSSES[method], strict=True):
        alone, trained = loss_of(p, Draws(4)), turn.loss(STEP, Draws(4))
        assert torch.equal(alone, trained)
        assert bool(trained != 0)


# ---- the form of these files


MODULES = {
    name: importlib.import_module(f"{package.__name__}.{name}") for _, name, _ in pkgutil.iter_modules(package.__path__)
}
FUNCTIONS = ast.FunctionDef | ast.Lambda
CARDS = {name: module for name, module in MODULES.items() if hasattr(module, "CARD")}
PURE = {
    f"{name}.{key}": value
    for name, module in MODULES.items()
    for key, value in vars(module).items()
    if key.endswith("_loss") and inspect.isfunction(value) and value.__module__ == module.__name__
}
"""The pure losses, by module and name."""


def tree(module):
    return ast.parse(inspect.getsource(module))


def nested(node, above=()):
    """Every function below a node, with those that it lies in, the outermost first."""
    for child in ast.iter_child_nodes(node):
        inside = (*above, child) if isinstance(child, FUNCTIONS) else above
        if isinstance(child, FUNCTIONS):
            yield child, above
        yield from nested(child, inside)


def gives_functions(source):
    """Lines of functions within functions that give a function away, or that have another one between them and the
    outermost.
    """
    found = []
    for function, above in nested(source):
        if isinstance(function, ast.Lambda):
            own, given = set(), [function.body]
        else:
            own = {
                inner.name for inner, between in nested(function) if isinstance(inner, ast.FunctionDef) and not between
            }
            given = [node.value for node in ast.walk(function) if isinstance(node, ast.Return)]
        hands_out = any(isinstance(what, ast.Lambda) or getattr(what, "id", None) in own for what in given)
        if (above and hands_out) or (len(above) >= 2 and isinstance(function, ast.FunctionDef)):
            found.append(function.lineno)
    return found


@pytest.mark.parametrize("name", MODULES)
def test_no_function_gives_a_function_that_gives_one(name):
    assert gives_functions(tree(MODULES[name])) == []


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n    def g():\n        def h():\n            pass\n        return h\n    return g",
        "def f():\n    def g():\n        return lambda x: x\n    return g",
        "def f():\n    return lambda a: lambda b: a + b",
    ],
)
def test_such_a_function_would_be_found(text):
    assert gives_functions(ast.parse(text))


def test_a_file_with_a_loss_has_a_card_and_every_card_is_in_the_catalog():
    assert {name.partition(".")[0] for name in PURE} <= set(CARDS)
    everyone = METHODS | TOKEN_METHODS
    assert {module.CARD.id for module in CARDS.values()} == set(everyone)
    for module in CARDS.values():
        assert everyone[module.CARD.id] is module.CARD
        assert module.CARD.tokens == (module.CARD.id in TOKEN_METHODS)


def numbers_of_the_box(module):
    """The numbers of the lines of the algorithm in a docstring."""
    return [int(n) for n in re.findall(r"^    (\d+)  \S", module.__doc__, re.MULTILINE)]


def numbers_of_the_lines(module):
    """The numbers behind the code, as in "# 2" or "# 3, 4: why"."""
    found = set()
    for token in tokenize.generate_tokens(io.StringIO(inspect.getsource(module)).readline):
        numbers = re.fullmatch(r"# (\d+(?:, \d+)*)(?:[:;] .*)?", token.string)
        if token.type == tokenize.COMMENT and numbers and token.line[: token.start[1]].strip():
            found |= {int(n) for n in numbers[1].split(", ")}
    return found


@pytest.mark.parametrize("name", CARDS)
def test_every_line_of_a_box_is_a_line_of_code(name):
    box = numbers_of_the_box(CARDS[name])
    assert box == list(range(1, len(box) + 1))
    assert box
    # a method that is another one's training with other knobs has its lines there
    trained_by = importlib.import_module(CARDS[name].CARD.train.__module__)
    lines = numbers_of_the_lines(CARDS[name]) | numbers_of_the_lines(trained_by)
    assert lines == set(box)


@pytest.mark.parametrize("name", PURE)
def test_a_pure_loss_takes_no_problem_and_no_knobs(name):
    parameters = inspect.signature(PURE[name]).parameters
    assert {"problem", "knobs", "training", "step"}.isdisjoint(parameters)
    assert "draws" in parameters


WORDS = {"jump", "chord", "mix", "alpha", "sigma", "nsr", "t_of_lam", "mse", "pseudo_huber", "vector_huber"}
"""What a reader of the library knows, its schedules' levels and its distances."""


def names_called(module, name):
    """The toydiff functions and methods that a function calls, itself or by others of its own file; what it was given,
    such as a denoiser, is none.
    """
    body = tree(module).body
    functions = {node.name: node for node in body if isinstance(node, FUNCTIONS)}
    imported = {
        x.asname or x.name for node in body if isinstance(node, ast.ImportFrom) and node.level for x in node.names
    }
    waiting, seen, found = [name], set(), set()
    while waiting:
        function = functions[waiting.pop()]
        seen.add(function.name)
        nodes = list(ast.walk(function))
        called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        called |= {default.id for default in function.args.defaults if isinstance(default, ast.Name)}
        waiting += [own for own in called if own in functions and own not in seen]
        found |= called & imported
        for node in nodes:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner, method = ast.unparse(node.func.value).partition("(")[0], node.func.attr
                if owner in ("draws", "torch", "F") or hasattr(Tensor, method):
                    continue
                if owner in imported:  # a class; what is made and called at once is one name
                    found.discard(owner)
                found.add(f"{owner}.{method}" if owner in imported else method)
    return found - WORDS


def hops():
    """Where a reader of each loss has to go: {loss: names}."""
    return {
        f"{name}.{key}": sorted(names_called(module, key))
        for name, module in MODULES.items()
        for key in vars(module)
        if f"{name}.{key}" in PURE
    }


def test_a_loss_is_read_in_three_hops():
    far = {name: found for name, found in hops().items() if len(found) > 3}
    assert not far
