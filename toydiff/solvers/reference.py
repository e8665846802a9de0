"""The reference solution of the PF-ODE: scipy's DOP853 in float64."""

import numpy as np
import torch
from torch import Tensor

from ..denoisers import Denoiser, check_denoiser, check_guidance, check_weights
from ..support.checks import check_count, check_finite, check_grid, check_number, check_positive, check_state


@torch.no_grad()
def reference(
    D: Denoiser,
    x: Tensor,
    t: float = 1.0,
    s: float = 0.0,
    *,
    cond: Tensor | None = None,
    guidance_scale: Tensor | float = 1.0,
    tolerance: float = 1e-12,
    calls: int = 100_000,
) -> Tensor:
    """The PF-ODE of D from x at time t to s, (B, ...), by scipy's adaptive Runge-Kutta DOP853, computed in float64.

    It runs in the angle theta = atan(sigma/alpha), in which x/sqrt(alpha^2 + sigma^2) = u obeys du/dtheta = cos(theta)
    eps - sin(theta) x_0: finite at both ends of every schedule, and independent of how the schedule runs through t.
    `tolerance` is relative and absolute, per step, > 0. It costs hundreds of calls of D, and thousands where the model
    is stiff; `calls` is the most that it may. `ValueError` for bad input, `FloatingPointError` if D or its weights are
    not finite, `RuntimeError` if the integration fails or takes more calls.
    """
    from scipy.integrate import solve_ivp

    check_denoiser(D)
    check_state(x)
    check_finite(x)
    for time, name in ((t, "t"), (s, "s")):
        check_number(time.item() if isinstance(time, Tensor) and time.ndim == 0 else time, name)
    check_grid(torch.tensor([float(t), float(s)], dtype=torch.float64))
    check_positive(tolerance, "tolerance")
    check_count(calls, "calls")
    guidance_scale = check_guidance(guidance_scale, x.double())
    if x.numel() == 0:
        return x.clone()
    schedule = D.schedule
    ends = torch.tensor([t, s], dtype=torch.float64, device=x.device)
    alpha, sigma = schedule.alpha(ends), schedule.sigma(ends)
    theta = torch.atan2(sigma, alpha)
    size = torch.sqrt(alpha**2 + sigma**2)

    spent = 0

    def rate(angle: float, u: np.ndarray) -> np.ndarray:
        nonlocal spent
        spent += 1
        if spent > calls:
            raise RuntimeError(
                f"the reference took its {calls} calls and is not done: the model is too stiff for a tolerance of "
                f"{tolerance:g}; allow more calls, or a larger tolerance"
            )
        angle_ = torch.tensor(angle, dtype=torch.float64, device=x.device)
        # the ends themselves, not their rounded inverse
        time = torch.where(
            angle_ == theta[0],
            ends[0],
            torch.where(angle_ == theta[1], ends[1], schedule.t_of_lam(-torch.log(torch.tan(angle_)))),
        )
        scale = torch.sqrt(schedule.alpha(time) ** 2 + schedule.sigma(time) ** 2)
        try:
            p = D(scale * torch.as_tensor(u, device=x.device).reshape(x.shape), time, cond, guidance_scale)
        except RuntimeError as error:
            if "dtype" not in str(error):
                raise
            raise ValueError(
                f"the reference is computed in float64, which this model does not take (D.double() makes it): {error}"
            ) from None
        slope = torch.cos(angle_) * p.eps - torch.sin(angle_) * p.x0
        if not bool(torch.isfinite(slope).all()):
            check_weights(D)
            raise FloatingPointError(f"the model's prediction at t = {float(time):g} is not finite")
        return slope.cpu().numpy().ravel()

    start = (x.to(torch.float64) / size[0]).cpu().numpy().ravel()
    result = solve_ivp(rate, theta.tolist(), start, method="DOP853", rtol=max(tolerance, 3e-14), atol=tolerance)
    if not result.success:
        raise RuntimeError(f"the reference integration failed: {result.message}")
    return (size[1] * torch.as_tensor(result.y[:, -1], device=x.device).reshape(x.shape)).to(x)
