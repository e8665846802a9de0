"""The catalog: one `Card` a method. The command, the app and the tutorials read it, so that a new method is one file and one card."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .distill import adversarial as a
from .distill import consistency as c
from .distill import guided as g
from .distill import naive as n
from .distill import phased as ph
from .distill import phased_consistency as pc
from .distill import progressive as p
from .distill import rectified_diffusion as rd
from .distill import rectified_flow as rf
from .distill import regression as r
from .distill import score_distillation as s
from .distill.base import Knobs, Training
from .solvers.registry import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION


@dataclass(frozen=True)
class Sampler:
    """How a method's result is meant to be sampled: solver, time grid, and the numbers of steps to measure it at."""

    solver: str = "ddim"
    grid: str = "uniform"
    steps: tuple[int, ...] = (1, 2, 4)


@dataclass(frozen=True)
class Card:
    """A method: what it is called, where it is from, how it is trained and sampled, and how it is drawn.

    `train(problem, knobs, teacher, pairs, start)` returns the `Training` that `fit` runs. needs: "nothing", "teacher", or "pairs" (of a
    teacher). data: whether it is trained on data; without, what it learns from is a teacher's answers and pairs alone. `defaults`: knobs that differ from their own defaults, by kind of problem. `looks`: how often a run is measured on its way, where
    its losses oscillate or say nothing, so that the best is kept; 0 for never.
    """

    id: str
    title: str
    paper: str
    deck: str
    equation: str
    needs: str
    train: Callable[..., Training]
    knobs: type[Knobs]
    color: str
    marker: str = "o"
    dash: str = "solid"
    sampler: Sampler = field(default_factory=Sampler)
    defaults: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    looks: int = 0
    data: bool = True


MANY = Sampler("dpm++2m", "lambda", (10, 20, 25))
RENOISED = Sampler("lcm", "uniform", (1, 2, 4))
ONE = Sampler("lcm", "uniform", (1,))
LOOKS = 20
_DIGITS = {"batch": 64, "lr": 1e-3, "updates": 1002}
_POINTS = {"batch": 512, "lr": 1e-3, "updates": 3600}
_SD = {
    "batch": 16,
    "lr": 1e-4,
    "updates": 2000,
    "ema": 0.99,
    "warmup": 50,
}  # a LoRA's; all weights want a tenth of the lr
_SD_GUIDANCE = 7.5
_STUDENT = {"digits": _DIGITS, "mixture": _POINTS, "points": _POINTS, "sd": _SD}
_RECTIFIED = _STUDENT | {"sd": _SD | {"edge": 0.25}}
_TOLD = _STUDENT | {"sd": _SD | {"g_min": 1.0, "g_max": 14.0}}
_PROGRESSIVE = _STUDENT | {"sd": _SD | {"first": 32, "last": 4, "guidance_scale": _SD_GUIDANCE}}
_CONSISTENCY = {
    "digits": _DIGITS | {"updates": 500, "distance": "huber", "c": 0.015},
    "mixture": _POINTS | {"updates": 2500},
    "points": _POINTS | {"updates": 2500},
    "sd": _SD | {"distance": "element-huber", "c": 1e-3},
}
_GENTLE = _CONSISTENCY["digits"] | {"updates": 600, "lr": 3e-4, "ema": 0.99, "warmup": 20, "target_ema": 0.95}
_CD = _CONSISTENCY | {
    "digits": _GENTLE | {"solver": "ddim"},  # half the calls of Heun's step
    "sd": _CONSISTENCY["sd"] | {"solver": "ddim", "grid": "uniform", "intervals": 50, "guidance_scale": _SD_GUIDANCE},
}
_MULTISTEP = _CONSISTENCY | {"sd": _CONSISTENCY["sd"] | {"guidance_scale": _SD_GUIDANCE}}
_GUIDED = {
    "digits": _CONSISTENCY["digits"],
    "mixture": _CONSISTENCY["mixture"] | {"intervals": 80},
    "points": _CONSISTENCY["points"] | {"intervals": 80},
    "sd": _CONSISTENCY["sd"] | {"intervals": 50, "g_min": 3.0, "g_max": 15.0},  # w from 2 to 14
}
_PCM = _GUIDED | {
    "digits": _GENTLE | {"updates": 300},
    "sd": _GUIDED["sd"] | {"intervals": 40, "g_min": 5.0, "g_max": 6.0},
}
_WINDOWS = {
    "digits": _DIGITS | {"substeps": 5, "updates": 400},
    "mixture": _POINTS | {"updates": 2000},
    "points": _POINTS | {"updates": 2000},
    "sd": _SD | {"guidance_scale": _SD_GUIDANCE},
}  # each update calls the teacher K times
_SCORES = {
    "digits": _DIGITS | {"updates": 300, "lr": 1e-4, "lr_fake": 3e-4, "ema": 0.98, "warmup": 20, "ratio": 2},
    "mixture": _POINTS | {"updates": 1000, "lr": 5e-4, "ema": 0.99, "ratio": 3},
    "points": _POINTS | {"updates": 1000, "lr": 5e-4, "ema": 0.99, "ratio": 3},
    "sd": _SD | {"lr_fake": 1e-4, "ratio": 1, "guidance_scale": 4.5},
}
# few numbers to train, each of which may move more
_LORA = _SCORES | {"digits": _SCORES["digits"] | {"lr_fake": 1e-3}, "sd": _SCORES["sd"] | {"lr_fake": 1e-3, "rank": 64}}
_DMD2 = (
    _SCORES
    | {kind: _SCORES[kind] | {"updates": 600} for kind in ("mixture", "points")}
    | {"sd": _SCORES["sd"] | {"ratio": 5}}
)
_ADVERSARIAL = {
    # on images the judge sees little at first, and a quick student runs away from it
    "digits": _DIGITS | {"updates": 100, "lr": 1e-5, "ema": 0.98, "warmup": 20, "reach": 0.5, "lr_d": 3e-3, "ratio": 4},
    "mixture": _POINTS | {"updates": 1000, "lr": 2e-4, "ema": 0.99, "reach": 0.5},
    "points": _POINTS | {"updates": 1000, "lr": 2e-4, "ema": 0.99, "reach": 0.5},
    "sd": _SD | {"lr": 1e-5, "reach": 0.5, "lr_d": 1e-3},
}
_TEACHER = {
    "digits": _DIGITS | {"batch": 128, "lr": 2e-3, "updates": 9000, "cycles": 2},
    "mixture": _POINTS | {"lr": 2e-3, "drop": 0.8},  # points are sampled without a class
    "points": _POINTS | {"lr": 2e-3},
    "sd": _SD,
}
# in points the mean square in v weighs all noise levels alike, where that in eps leaves the modes' shares to chance
_DIFFUSION = (
    _TEACHER | {kind: _TEACHER[kind] | {"kind": "v"} for kind in ("mixture", "points")} | {"sd": _SD | {"kind": ""}}
)

_CARDS = [
    Card("diffusion", "Diffusion training", "arXiv 2006.11239, alg. 1", "slide 25, algorithm 2", "|eps(x_t, t) - eps|^2, x_t = alpha x_0 + sigma eps", "nothing", r.diffusion, r.DiffusionKnobs, BLACK, "o", "solid", MANY, _DIFFUSION),
    Card("flow-matching", "Flow matching = 1-rectified flow", "arXiv 2210.02747, eq. 23", "slide 24, algorithm 1", "|v(x_t, t) - (eps - x_0)|^2, x_t = (1 - t) x_0 + t eps", "nothing", r.flow_matching, r.FlowMatchingKnobs, GREY, "s", "dash", MANY, _TEACHER),
    Card("naive", "Naive distillation", "arXiv 2101.02388, eq. 7", "slide 10", "|x_0(eps, 1) - ODE(eps)|^2", "pairs", n.naive, Knobs, SKY, "v", "dot", Sampler(steps=(1,)), _STUDENT, data=False),
    Card("guided", "Guided distillation", "arXiv 2210.03142, alg. 1", "slide 6", "max(SNR, 1) |x_0(x_t, c, g) - x_0^g(x_t, c)|^2", "teacher", g.guided, g.GuidedKnobs, PURPLE, "o", "solid", MANY, _TOLD),
    Card("progressive", "Progressive distillation", "arXiv 2202.00512, alg. 2", "slide 11, algorithm 2", "max(SNR, 1) |x_0(x_t, t) - chord(x_t, two teacher steps)|^2", "teacher", p.progressive, p.ProgressiveKnobs, GREEN, "D", "solid", Sampler(steps=(1,)), _PROGRESSIVE),
    Card("rectified-flow", "Rectified flow (reflow)", "arXiv 2209.03003, alg. 1", "slides 21, 22, 24, algorithm 3", "|v(x_t, t) - (eps - x_0)|^2, (eps, x_0) a pair of the teacher's ODE", "pairs", rf.rectified_flow, rf.ReflowKnobs, ORANGE, "s", "solid", Sampler(), _RECTIFIED, data=False),
    Card("instaflow", "One-step distillation of a rectified flow (InstaFlow)", "arXiv 2309.06380, eq. 5", "slide 29", "|eps - v(eps, 1) - x_0|^2, at t = 1 only", "pairs", rf.instaflow, Knobs, ORANGE, "v", "dot", Sampler(steps=(1,)), _STUDENT, data=False),
    Card("rectified-diffusion", "Rectified Diffusion", "arXiv 2410.07303", "slides 26, 27, algorithm 4", "|eps(x_t, t) - eps|^2, (eps, x_0) a pair of the teacher's ODE", "pairs", rd.rectified_diffusion, rd.RectifiedDiffusionKnobs, BLUE, "o", "solid", Sampler(), _RECTIFIED, data=False),
    Card("perflow", "Piecewise rectified flow (PeRFlow)", "arXiv 2405.07510, alg. 1", "slides 29 to 31", "|eps(x_t, t) - eps_chord|^2, x_t straight between a window's ends", "teacher", ph.perflow, ph.PhasedKnobs, VERMILLION, "s", "dash", Sampler(steps=(4,)), _WINDOWS),
    Card("rectified-diffusion-phased", "Rectified Diffusion (phased)", "arXiv 2410.07303, sec. 3.4", "slide 28", "|jump(eps(x_t, t), s) - x_s|, eps = delta z / delta NSR of a window", "teacher", ph.rectified_diffusion_phased, ph.PhasedKnobs, BLUE, "D", "dash", Sampler(steps=(4,)), _WINDOWS),
    Card("cd", "Consistency distillation (CD)", "arXiv 2303.01469, alg. 2", "slide 12, algorithm 2", "d(f(x_t, t), f_ema(Phi(x_t, t to r), r)), Phi a teacher's step", "teacher", c.consistency_distillation, c.DistillationKnobs, VERMILLION, "o", "solid", RENOISED, _CD),
    Card("ct", "Consistency training (CT, iCT)", "arXiv 2303.01469, alg. 3; arXiv 2310.14189", "slide 16", "d(f(x_t, t), f(x_r, r)), the same x_0 and eps at t and r", "nothing", c.consistency_training, c.TrainingKnobs, GREY, "^", "dot", RENOISED, _CONSISTENCY),
    Card("ect", "Easy consistency tuning (ECT)", "arXiv 2406.14548, alg. 1", "slides 16, 17", "|f(x_t, t) - f(x_r, r)|/(NSR_t - NSR_r), r from 0 towards t", "teacher", c.easy_consistency_tuning, c.TuningKnobs, SKY, "^", "dash", RENOISED, _CONSISTENCY),
    Card("sct", "Stable consistency tuning (SCT)", "arXiv 2410.18958", "slide 17", "|f(x_t, t) - f(x_r, r)|/(NSR_t - NSR_r), x_r by the reference batch's mean of x_0", "teacher", c.stable_consistency_tuning, c.TuningKnobs, GREEN, "^", "solid", RENOISED, _CONSISTENCY),
    Card("multistep-consistency", "Multistep consistency", "arXiv 2403.06807, alg. 1", "slide 32, reference 12", "max(SNR, 1) |x_0(z_t, t) - invDDIM(z_ref, z_t)|^2, z_ref at the phase's edge", "teacher", pc.multistep_consistency, pc.MultistepKnobs, PURPLE, "D", "dash", Sampler(steps=(4,)), _MULTISTEP),
    Card("lcm", "Latent consistency model (LCM)", "arXiv 2310.04378, alg. 1", "slides 13 to 15", "d(f(x_t, g, t), f_ema(x_r, g, r)), x_r by one guided DDIM step", "teacher", pc.lcm, pc.LCMKnobs, ORANGE, "^", "dashdot", RENOISED, _GUIDED),
    Card("pcm", "Phased consistency model (PCM)", "arXiv 2405.18407, alg. 1", "slide 13, algorithm 1", "d(f_m(x_t, t), f_m(x_r, r)), f_m a jump to the lower edge of phase m", "teacher", pc.phased_consistency, pc.PhasedConsistencyKnobs, VERMILLION, "D", "dash", Sampler(steps=(4,)), _PCM),
    Card("vsd", "Variational score distillation (VSD)", "arXiv 2305.16213, alg. 1", "slide 18", "w(t) (eps_psi(x_t, t) - eps_phi(x_t, t)) dg/dtheta, w = alpha/sigma", "teacher", s.vsd, s.VSDKnobs, PURPLE, "P", "solid", ONE, _SCORES, LOOKS, data=False),
    Card("swiftbrush", "SwiftBrush", "arXiv 2312.05239, alg. 1", "slide 18, algorithm 1", "the same, phi a LoRA on the teacher, w = sigma^2", "teacher", s.swiftbrush, s.SwiftBrushKnobs, SKY, "P", "dot", ONE, _LORA, LOOKS, data=False),
    Card("dmd", "Distribution matching distillation (DMD)", "arXiv 2311.18828, alg. 1", "slide 32, reference 19", "(D_phi - D_psi)/mean|x - D_psi| dg/dtheta, and |g(z) - ODE(z)|^2", "pairs", s.dmd, s.DMDKnobs, BLUE, "P", "solid", ONE, _SCORES, LOOKS, data=False),
    Card("dmd2", "Improved distribution matching distillation (DMD2)", "arXiv 2405.14867", "slide 32, reference 19", "(D_phi - D_psi)/mean|x - D_psi| dg/dtheta, and a GAN on phi's features", "teacher", s.dmd2, s.DMD2Knobs, GREEN, "P", "dash", ONE, _DMD2, LOOKS),
    Card("sim", "Score implicit matching (SIM)", "arXiv 2410.16794, alg. 1", "slides 19, 20", "-w (alpha/sigma^2) d'(s_phi - s_psi)^T (D_phi(x_t) - x_0)", "teacher", s.score_implicit_matching, s.SIMKnobs, ORANGE, "P", "dashdot", ONE, _SCORES, LOOKS, data=False),
    Card("adversarial", "Adversarial post-training", "arXiv 2301.09515; arXiv 2403.12015", "slides 4, 6, 9, reference 16", "-D(x_u, u), D on the frozen teacher's features, x_u a student's sample noised", "teacher", a.adversarial, a.AdversarialKnobs, BLACK, "X", "dash", ONE, _ADVERSARIAL, LOOKS),
]  # fmt: skip

METHODS: dict[str, Card] = {card.id: card for card in _CARDS}
"""The methods that train something, by name, in the order in which tables list them."""
