"""Solutions of lesson 04.

3. (a) 6. A guided step of dpm2 costs 2 x 2 calls and the jump 2 x 1: 4 (N - 1) + 2 <= 24.
(b) AnimateLCM is a student whose teacher was guided: guidance is in its weights, and cfg comes on top of that. A
diffusion model that was not distilled has none built in, and is usually sampled at 5 to 8, at the price that section 6
measures.
"""


def guide(eps_cond, eps_uncond, omega):
    g = 1 + omega
    return eps_uncond + g * (eps_cond - eps_uncond), g


def trailing_steps(N):
    return [1000 - k * (1000 // N) for k in range(N)]
