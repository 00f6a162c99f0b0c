"""Student's t distribution: the chance of a larger |t|, and the bounds of a 95% interval, from the standard library."""

import math

MAX_TERMS = 500
TINY = 1e-300
NEAR = 1e-14
"""Relative change of the continued fraction that ends it."""


def two_sided_p(t: float, degrees: float) -> float:
    """P(|T| >= |t|) of Student's t with so many degrees of freedom, which may be infinite: the normal distribution.

    As 1 - CDF it is the regularised incomplete beta function I_x(degrees / 2, 1 / 2) at x = degrees / (degrees + t^2)
    (DLMF 8.17; its continued fraction is 8.17.22).
    """
    if math.isinf(degrees):
        return math.erfc(abs(t) / math.sqrt(2))
    return _incomplete_beta(degrees / 2, 0.5, degrees / (degrees + t * t))


def t95(degrees: float) -> float:
    """The t that |T| exceeds with probability 0.05: what a standard error is multiplied by for a 95% interval."""
    low, high = 0.0, 2.0
    while two_sided_p(high, degrees) > 0.05:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided_p(middle, degrees) > 0.05 else (low, middle)
    return high


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """I_x(a, b), regularised."""
    if x <= 0 or x >= 1:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1) / (a + b + 2):  # Where the fraction converges slowly, the other tail's does not.
        return 1 - _incomplete_beta(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) * _continued_fraction(a, b, x) / a


def _continued_fraction(a: float, b: float, x: float) -> float:
    """By Lentz's method (1976), as modified by Thompson and Barnett (1986)."""
    c, d = 1.0, 1 / _not_zero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, MAX_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d, c = 1 / _not_zero(1 + term * d), _not_zero(1 + term / c)
            value *= c * d
        if abs(c * d - 1) < NEAR:
            break
    return value


def _not_zero(value: float) -> float:
    return value if abs(value) > TINY else TINY
