"""The solvers as their papers write them, in float64 NumPy: nothing here knows of tables.

Each takes noise levels `t` (the final 0 included), a denoiser D(x, sigma) and normals by draw, and returns the last x.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Denoiser = Callable[[Array, float], Array]

Noise = Callable[[int], Array]


def euler(t: list[float], denoise: Denoiser, noise: Noise) -> Array:
    """Karras et al. 2022, Algorithm 1 without its correction."""
    x = t[0] * noise(0)
    for now, following in zip(t, t[1:], strict=False):
        x = x + (following - now) * (x - denoise(x, now)) / now
    return x


def heun(t: list[float], denoise: Denoiser, noise: Noise, churn: float = 0.0, s_noise: float = 1.0) -> Array:
    """Karras et al. 2022, Algorithm 2, with S_min = 0 and S_max infinite; step i's noise is draw i + 1."""
    n = len(t) - 1
    x = t[0] * noise(0)
    for i, (now, following) in enumerate(zip(t, t[1:], strict=False)):
        hat = now + min(churn / n, np.sqrt(2) - 1) * now
        x = x + np.sqrt(hat**2 - now**2) * s_noise * noise(i + 1)
        slope = (x - denoise(x, hat)) / hat
        ahead = x + (following - hat) * slope
        if following > 0:
            ahead = x + (following - hat) * (slope + (ahead - denoise(ahead, following)) / following) / 2
        x = ahead
    return x


def dpmpp_2m(t: list[float], denoise: Denoiser, noise: Noise) -> Array:
    """Lu et al. 2022, Algorithm 2, in lambda = -ln sigma; first order at the first step and at the last, to 0."""
    x = t[0] * noise(0)
    before: Array | None = None
    for i, (now, following) in enumerate(zip(t, t[1:], strict=False)):
        data = prediction = denoise(x, now)
        if before is not None and following > 0:
            r = np.log(t[i - 1] / now) / np.log(now / following)
            prediction = (1 + 1 / (2 * r)) * data - before / (2 * r)
        x = following / now * x + (1 - following / now) * prediction
        before = data
    return x


def dpmpp_3m(t: list[float], denoise: Denoiser, noise: Noise) -> Array:
    """The third-order multistep update with the derivatives of the parabola through three predictions.

    phi_1 = 1 - e^-h, phi_2 = 1 - phi_1 / h, phi_3 = 1 - 2 phi_2 / h are the integrals of 1, u and u^2.
    """
    x = t[0] * noise(0)
    seen: list[tuple[float, Array]] = []
    for now, following in zip(t, t[1:], strict=False):
        seen.insert(0, (-np.log(now), denoise(x, now)))
        data = seen[0][1]
        if following == 0:
            return data
        h = np.log(now / following)
        phi_1 = 1 - np.exp(-h)
        phi_2 = 1 - phi_1 / h
        phi_3 = 1 - 2 * phi_2 / h
        x = following / now * x + phi_1 * data
        if len(seen) == 2:
            x = x + phi_1 / 2 * (data - seen[1][1]) / ((seen[0][0] - seen[1][0]) / h)
        elif len(seen) > 2:
            r0, r1 = (seen[0][0] - seen[1][0]) / h, (seen[1][0] - seen[2][0]) / h
            d_0, d_1 = (data - seen[1][1]) / r0, (seen[1][1] - seen[2][1]) / r1
            d1 = d_0 + r0 / (r0 + r1) * (d_0 - d_1)
            d2 = (d_0 - d_1) / (r0 + r1)
            x = x + phi_2 * d1 + phi_3 * d2
    return x


def dpmpp_2m_sde(t: list[float], denoise: Denoiser, noise: Noise) -> Array:
    """Lu et al. 2022, SDE-DPM-Solver++ 2M; step i's noise is draw i + 1."""
    x = t[0] * noise(0)
    before: tuple[float, Array] | None = None
    for i, (now, following) in enumerate(zip(t, t[1:], strict=False)):
        data = denoise(x, now)
        if following == 0:
            return data
        h = np.log(now / following)
        x = following / now * np.exp(-h) * x + (1 - np.exp(-2 * h)) * data
        if before is not None:
            x = x + (1 - np.exp(-2 * h)) / 2 * (data - before[1]) / (before[0] / h)
        x = x + following * np.sqrt(1 - np.exp(-2 * h)) * noise(i + 1)
        before = h, data
    return x


def unipc(p: int, t: list[float], denoise: Denoiser, noise: Noise) -> Array:
    """Zhao et al. 2023, Algorithms 5 and 6 (data prediction, multistep) with B(h) = B2(h) = e^h - 1 and h < 0."""
    lam = [-np.log(sigma) if sigma else np.inf for sigma in t]
    x = t[0] * noise(0)
    seen = [denoise(x, t[0])]

    def rho(h: float, r: list[float]) -> Array:
        """R rho = b with R[j, k] = r_k^j and b_j = j! phi_(j+1)(h) h^j / B(h), for j from 1."""
        if len(r) == 1:
            return np.array([0.5])
        b, phi = [], np.expm1(h) / h - 1
        for j in range(1, len(r) + 1):
            factorial = float(np.prod(np.arange(1, j + 1)))
            b.append(phi * factorial / np.expm1(h))
            phi = phi / h - 1 / float(np.prod(np.arange(1, j + 2)))
        return np.linalg.solve(np.vander(r, increasing=True).T, np.array(b))

    for i in range(1, len(t)):
        if t[i] == 0:
            return seen[-1]
        h, base = lam[i] - lam[i - 1], seen[-1]
        order = min(i, p)
        r = [(lam[i - 1 - k] - lam[i - 1]) / h for k in range(1, order)]
        differences = [(seen[-1 - k] - base) / r[k - 1] for k in range(1, order)]
        first = t[i] / t[i - 1] * x - np.expm1(-h) * base
        weights = rho(-h, r) if r else []
        predicted = first - np.expm1(-h) * sum(w * d for w, d in zip(weights, differences, strict=True))
        now = denoise(predicted, t[i])
        weights = rho(-h, [*r, 1.0])
        x = first - np.expm1(-h) * sum(w * d for w, d in zip(weights, [*differences, now - base], strict=True))
        seen.append(now)
    return x


def ipndm(order: int, t: list[float], denoise: Denoiser, noise: Noise) -> Array:
    """Adams-Bashforth on dx/dsigma: the integral, over the step, of the polynomial through the last derivatives."""
    x = t[0] * noise(0)
    slopes: list[Array] = []
    for i, (now, following) in enumerate(zip(t, t[1:], strict=False)):
        data = denoise(x, now)
        if following == 0:
            return data
        slopes.insert(0, (x - data) / now)
        nodes = t[max(0, i - order + 1) : i + 1][::-1]
        for k, (node, slope) in enumerate(zip(nodes, slopes, strict=False)):
            others = np.array([other for j, other in enumerate(nodes) if j != k])
            lagrange = np.poly1d(others, r=True) / float(np.prod(node - others))
            integral = np.polyint(lagrange)
            x = x + float(integral(following) - integral(now)) * slope
    return x


def algorithm_1(time: str, correct: bool, t: list[float], denoise: Denoiser, noise: Noise) -> Array:
    """Karras et al. 2022, Algorithm 1 with VP or VE of Table 1: sigma(t) and s(t); the last step, to 0, is D."""

    def vp_time(sigma: float) -> float:
        return (np.sqrt(0.1**2 + 2 * 19.9 * np.log(sigma**2 + 1)) - 0.1) / 19.9

    def slope(x: Array, t: float) -> Array:
        if time == "ve":
            sigma, rate, scale, scale_rate = np.sqrt(t), 0.5 / np.sqrt(t), 1.0, 0.0
        else:
            exponential = np.exp(0.5 * 19.9 * t**2 + 0.1 * t)
            sigma, scale = np.sqrt(exponential - 1), 1 / np.sqrt(exponential)
            rate = (19.9 * t + 0.1) * exponential / (2 * sigma)
            scale_rate = -(19.9 * t + 0.1) / 2 * scale
        return (rate / sigma + scale_rate / scale) * x - rate * scale / sigma * denoise(x / scale, sigma)

    def scale_at(t: float) -> float:
        return 1.0 if time == "ve" else float(np.exp(-(0.5 * 19.9 * t**2 + 0.1 * t) / 2))

    times = [sigma**2 if time == "ve" else vp_time(sigma) for sigma in t]
    x = scale_at(times[0]) * t[0] * noise(0)
    for now, following, sigma in zip(times, times[1:], t, strict=False):
        if following == 0:
            return denoise(x / scale_at(now), sigma)
        first = slope(x, now)
        ahead = x + (following - now) * first
        if correct:
            ahead = x + (following - now) / 2 * (first + slope(ahead, following))
        x = ahead
    return x


BY_NAME: dict[str, Callable[..., Array]] = {
    "euler": euler,
    "heun": heun,
    "dpmpp-2m": dpmpp_2m,
    "dpmpp-3m": dpmpp_3m,
    "dpmpp-2m-sde": dpmpp_2m_sde,
    "unipc-2": partial(unipc, 2),
    "unipc-3": partial(unipc, 3),
    "ipndm-2": partial(ipndm, 2),
    "ipndm-3": partial(ipndm, 3),
    "ipndm-4": partial(ipndm, 4),
}
