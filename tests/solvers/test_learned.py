"""Solvers learned for a model: they begin as the default, improve on noises that they have not seen, and know what they
are for."""

import dataclasses
import json

import pytest
import torch
from cases import ALL_SCHEDULES, draw

from toydiff import GaussianMixture, Tabulated, mixtures, runs, solve
from toydiff.denoisers import Guided, LambdaDenoiser
from toydiff.nets import MLP
from toydiff.solvers import DEFAULT_SOLVER, solver_by_name
from toydiff.solvers.learned import Learned, LearnedTimes, bundled, write_solver
from toydiff.solvers.learning import learn_solver

pytestmark = pytest.mark.usefixtures("float64")

S = ALL_SCHEDULES["scaled-linear"]
RING = mixtures.ring()


def sizes(a, b):
    return (a - b).flatten(1).norm(dim=1)


def errors(D, mixture, steps, solver, n=400, seed=99):
    """(median, root mean square) of the distance to the end of many steps, on noises of their own."""
    x = draw(mixture, S, 1.0, n, seed)
    size = sizes(solve(D, x, steps, solver=solver).end, solve(D, x, 200).end)
    return float(size.median()), float(size.square().mean().sqrt())


def start(steps, on=S, mixture=RING, **how):
    """What the search begins with."""
    D = mixture.denoiser(on)
    return D, next(learn_solver(D, draw(mixture, on, 1.0, 8), steps, truth_steps=20, **how)).solver


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_it_begins_as_the_default(steps, schedule):
    D, solver = start(steps, schedule)
    x = draw(RING, schedule, 1.0, 20, 5)
    path, default = solve(D, x, steps, solver=solver), solve(D, x, steps)
    assert (path.xs - default.xs).abs().max() < 1e-12
    assert path.nfe == default.nfe == steps


@pytest.mark.parametrize("name", ["dpm++2m", "heun", "ddim", "ab3"])
def test_times_alone_begin_as_the_solver(name):
    D, solver = start(4, solver=name)
    assert isinstance(solver, LearnedTimes)
    x = draw(RING, S, 1.0, 20, 5)
    assert (solve(D, x, 4, solver=solver).xs - solve(D, x, 4, solver=name).xs).abs().max() < 1e-12


def test_one_gaussian_is_solved_in_one_step():
    """Its flow is affine, which one step's coefficients are."""
    one = GaussianMixture([[0.0, 0.0]], std=0.7)
    D = one.denoiser(S)
    for found in learn_solver(D, draw(one, S, 1.0, 64), 1, seconds=10):
        last = found
    x = draw(one, S, 1.0, 50, 3)
    exact = one.flow(S, x, 1.0, 0.0)
    assert sizes(solve(D, x, 1).end, exact).median() > 0.1
    assert sizes(solve(D, x, 1, solver=last.solver).end, exact).max() < 1e-4


@pytest.mark.slow
def test_it_improves_on_noises_that_it_has_not_seen():
    D = RING.denoiser(S)
    *_, found = learn_solver(D, draw(RING, S, 1.0, 512, 1), 5, seconds=30)
    assert 0 < found.median < 0.35
    assert found.rms <= 1
    (median, rms), (default, default_rms) = (errors(D, RING, 5, s) for s in (found.solver, DEFAULT_SOLVER))
    assert median < 0.35 * default
    assert rms < default_rms
    *_, times = learn_solver(D, draw(RING, S, 1.0, 512, 1), 5, times_only=True, seconds=30)
    assert median < errors(D, RING, 5, times.solver)[0] < default  # what each of the two contributes


def test_what_is_learned_is_written_and_read(tmp_path):
    D = RING.denoiser(S)
    *_, found = learn_solver(D, draw(RING, S, 1.0, 64, 1), 3, seconds=2, name="a ring")
    file = tmp_path / "three.json"
    write_solver(file, found.solver)
    solver = solver_by_name(f"learned:{file}")
    assert solver == found.solver
    assert solver.about["learned_on"] == "a ring"
    x = draw(RING, S, 1.0, 9, 2)
    assert torch.equal(solve(D, x, 3, solver=f"learned:{file}").end, solve(D, x, 3, solver=found.solver).end)
    half = solve(D, x.float(), 3, solver=f"learned:{file}").end
    assert half.dtype == torch.float32
    assert sizes(half.double(), solve(D, x, 3, solver=found.solver).end).max() < 1e-3


@pytest.fixture
def file(tmp_path):
    _, solver = start(3)
    write_solver(tmp_path / "s.json", solver)
    return tmp_path / "s.json"


def test_another_model_is_refused(file):
    name, x = f"learned:{file}", torch.zeros(2, 2)
    other = mixtures.ring(std=0.2)
    for D, how, says in [
        (other.denoiser(S), {}, "learned for another model"),
        (RING.denoiser(ALL_SCHEDULES["vp"]), {}, "on the schedule"),
        (
            RING.denoiser(S),
            {"cond": torch.tensor([0, 1]), "guidance_scale": 2.0},
            "for guidance scale 1, and 2 is given",
        ),
    ]:
        with pytest.raises(ValueError, match=says):
            solve(D, x, 3, solver=name, **how)
    D = RING.denoiser(S)
    for how in ({"steps": 4}, {"steps": 3, "grid": "uniform"}, {"ts": torch.tensor([1.0, 0.5, 0.0])}):
        with pytest.raises(ValueError, match="has its own 3 steps and times"):
            solve(D, x, solver=name, **how)
    D.data_std = 2.0
    with pytest.raises(ValueError, match="learned for data_std"):
        solve(D, x, 3, solver=name)


def test_another_networks_weights_are_refused(tmp_path):
    a, b = (LambdaDenoiser(MLP(2, hidden=8, depth=1), S, "v").eval() for _ in range(2))
    solver = next(learn_solver(a, torch.randn(8, 2), 2, truth_steps=4)).solver
    assert solve(a, torch.randn(3, 2), 2, solver=solver).nfe == 2
    with pytest.raises(ValueError, match="learned for another model"):
        solve(b, torch.randn(3, 2), 2, solver=solver)


def resealed(file, **changes):
    """The file with other values, whose checksum holds."""
    from toydiff.support.sealed import write_index

    index = json.loads(file.read_text()) | changes
    write_index(file, {key: value for key, value in index.items() if key != "seal"})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ts": [1.0, 0.4, 0.5, 0.0]}, "decreas"),
        ({"ts": [1.0, 0.5, 0.0]}, "has 3 times, and 3 steps need 4"),
        ({"ts": [0.9, 0.5, 0.2, 0.0]}, "from 1 to 0"),
        ({"ts": "now"}, "is no list"),
        ({"a": [0.0]}, "another number of steps"),
        ({"b": [[0.0], [0.0], [0.0]]}, "another number of steps"),
        ({"b": [[None], [0.0, 0.0], [0.0] * 3]}, "damaged"),
        ({"b": [[1e300], [0.0, 0.0], [0.0] * 3]}, "damaged"),
        ({"a": [10**400, 0.0, 0.0]}, "damaged"),
        ({"trust": -1}, "damaged"),
        ({"data_std": 0}, "damaged"),
        ({"steps": 0}, "damaged"),
        ({"format": "toydiff-run"}, "is not a file of a learned solver"),
        ({"version": 9}, "has version 9"),
    ],
)
def test_files_that_are_no_solvers(file, changes, says):
    resealed(file, **changes)
    with pytest.raises(ValueError, match=says) as error:
        solver_by_name(f"learned:{file}")
    assert "\n" not in str(error.value)


def test_edited_numbers_are_noticed(file):
    file.write_text(file.read_text().replace('"guidance_scale": 1.0', '"guidance_scale": 2.0'))
    with pytest.raises(ValueError, match="was altered"):
        solver_by_name(f"learned:{file}")
    with pytest.raises(ValueError, match="there is no file of a learned solver"):
        solver_by_name(f"learned:{file.parent / 'none.json'}")
    with pytest.raises(ValueError, match="named with its file"):
        solver_by_name("learned")


def test_a_stochastic_solver_in_a_file_is_refused(tmp_path):
    _, solver = start(3, solver="ddim")
    write_solver(tmp_path / "s.json", dataclasses.replace(solver, about=solver.about | {"solver": "ddpm"}))
    with pytest.raises(ValueError, match="no deterministic solver"):
        solver_by_name(f"learned:{tmp_path / 's.json'}")


def test_settings_are_kept_and_a_learned_solver_is_no_part_of_another(tmp_path):
    _, solver = start(3, solver="ab3:sigma_data=2")
    write_solver(tmp_path / "s.json", solver)
    assert solver_by_name(f"learned:{tmp_path / 's.json'}") == solver
    for name in (f"picard:solver=learned:{tmp_path / 's.json'}", "parareal:fine=learned:x"):
        with pytest.raises(ValueError, match="cannot be a part of another one"):
            solver_by_name(name)
    write_solver(tmp_path / "t.json", dataclasses.replace(solver, about=solver.about | {"solver": "learned:t.json"}))
    with pytest.raises(ValueError, match="cannot be a part of another one"):
        solver_by_name(f"learned:{tmp_path / 't.json'}")


def test_what_cannot_be_learned():
    D, x = RING.denoiser(S), draw(RING, S, 1.0, 8)
    for solver in ("ddpm", "picard", "lcm"):
        with pytest.raises(ValueError, match="a deterministic solver that walks step by step"):
            next(learn_solver(D, x, 3, solver=solver))
    with pytest.raises(ValueError, match="4 noises at least"):
        next(learn_solver(D, x[:3], 3))
    with pytest.raises(ValueError, match="no times to learn"):
        next(learn_solver(D, x, 1, times_only=True))
    with pytest.raises(ValueError, match="steps"):
        next(learn_solver(D, x, 0))


def test_a_step_is_its_formula():
    """Line 2, on the first step: x_1 changes by S_1 (a_0 w_0 + b_00 F_0)."""
    D = RING.denoiser(S)
    x, times = draw(RING, S, 1.0, 5), tuple(solve(D, torch.zeros(1, 2), 2).ts.tolist())
    plain = Learned(times=times, a=(0.0, 0.0), b=((0.0,), (0.0, 0.0)))
    changed = dataclasses.replace(plain, a=(0.2, 0.0), b=((-0.3,), (0.0, 0.0)))
    before, after = (solve(D, x, 2, solver=solver).xs[1] for solver in (plain, changed))
    t, d = torch.tensor(times), D.data_std
    alpha, sigma, size = S.alpha(t), S.sigma(t), torch.hypot(S.sigma(t), d * S.alpha(t))
    p = D(x, 1.0)
    F = (sigma[0] * p.x0 / d - d * alpha[0] * p.eps) / size[0]
    assert (after - before - size[1] * (0.2 * x / size[0] - 0.3 * F)).abs().max() < 1e-12


def test_the_last_digit_of_a_table_is_no_other_schedule(tmp_path):
    """Levels are exponentials of logarithms, which processors round in different ways; what is refused is one short
    line."""
    on = Tabulated(torch.linspace(0.99, 0.01, 50, dtype=torch.float64))
    D, solver = start(3, on)
    table = [level * (1 + 1e-15) for level in solver.about["schedule"]["alphas_bar"]]
    assert table != solver.about["schedule"]["alphas_bar"]
    x = torch.zeros(2, 2)
    moved = dataclasses.replace(solver, about={**solver.about, "schedule": {"alphas_bar": table}})
    moved.about["schedule"].update({k: v for k, v in solver.about["schedule"].items() if k != "alphas_bar"})
    solve(D, x, 3, solver=moved)
    moved.about["schedule"]["alphas_bar"][7] *= 1.001
    with pytest.raises(ValueError, match="on the schedule") as error:
        solve(D, x, 3, solver=moved)
    assert len(str(error.value)) < 400


def test_guidance_that_is_bound_counts():
    D, x, cond = RING.denoiser(S), draw(RING, S, 1.0, 8), torch.arange(8)
    search = learn_solver(Guided(D, 4.0), x, 3, cond=cond, truth_steps=20)
    solver = next(search).solver
    assert solver.about["guidance_scale"] == 4
    ends = [
        solve(model, x, 3, solver=solver, cond=cond, guidance_scale=g).end for model, g in ((Guided(D, 4.0), 1), (D, 4))
    ]
    assert (ends[0] - ends[1]).abs().max() < 1e-12
    for model, g in ((D, 1.0), (Guided(D, 3.0), 1.0)):
        with pytest.raises(ValueError, match="learned for guidance scale 4"):
            solve(model, x, 3, solver=solver, cond=cond, guidance_scale=g)


# ---- the solvers that come with the library


@pytest.mark.slow
@pytest.mark.parametrize("name", bundled())
def test_the_solvers_of_the_library_are_ahead_on_other_noises(name):
    """On noises that they were not learned from, of the median error of the default at most a half."""
    torch.set_default_dtype(torch.float32)
    teacher, solver = runs.load("digits-teacher").denoiser, solver_by_name(f"learned:{name}")
    g, steps = solver.about["guidance_scale"], solver.about["steps"]
    assert name == f"digits-teacher-{steps}"
    x, cond = torch.randn(20, 1, 28, 28, generator=torch.Generator().manual_seed(321)), torch.arange(20) % 10
    ends = [
        solve(teacher, x, N, solver=how, cond=cond, guidance_scale=g, keep="end").end
        for N, how in ((steps, solver), (steps, DEFAULT_SOLVER), (60, DEFAULT_SOLVER))
    ]
    learned, default = (sizes(end, ends[-1]) for end in ends[:2])
    assert learned.median() < 0.5 * default.median()
    assert learned.square().mean() < default.square().mean()


def test_their_names():
    assert bundled() == ["digits-teacher-10", "digits-teacher-5", "digits-teacher-8"]
    with pytest.raises(ValueError, match=r"unknown learned solver 'digits-teacher-6'.*did you mean"):
        solver_by_name("learned:digits-teacher-6")
    with pytest.raises(ValueError, match=r"another model|on the schedule"):
        solve(RING.denoiser(S), torch.zeros(2, 2), 5, solver="learned:digits-teacher-5")
