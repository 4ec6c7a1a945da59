"""Sine and cosine inside kernels, and the normal distribution that is made of them.

Triton's own functions bring along a path for huge angles that takes local memory.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def sine_cosine_near_zero(r):
    """Sine and cosine, float32, of angles in +-pi/4.

    The polynomials are those of Cephes' sinf and cosf (Moshier 1992), exact to an ulp or two.
    """
    z = r * r
    sine = ((-1.9515295891e-4 * z + 8.3321608736e-3) * z - 1.6666654611e-1) * z * r + r
    cosine = ((2.443315711809948e-5 * z - 1.388731625493765e-3) * z + 4.166664568298827e-2) * z * z
    return sine, cosine - 0.5 * z + 1.0


@triton.jit
def in_quadrant(sine, cosine, quadrant):
    """Sine and cosine of an angle that lies ``quadrant`` (0 to 3) right angles further."""
    swap = (quadrant & 1) == 1
    s = tl.where(swap, cosine, sine)
    c = tl.where(swap, sine, cosine)
    return tl.where(quadrant >= 2, -s, s), tl.where((quadrant == 1) | (quadrant == 2), -c, c)


@triton.jit
def sine_cosine_of_turn(share):
    """Sine and cosine, float32, of a share of a whole turn in units of 2**-24; share: int32 in 0 .. 2**24 - 1."""
    quadrant = (share + (1 << 21)) >> 22
    r = (share - (quadrant << 22)).to(tl.float32) * 3.7450702829238412e-07  # 2 pi / 2**24
    sine, cosine = sine_cosine_near_zero(r)
    return in_quadrant(sine, cosine, quadrant & 3)


@triton.jit
def normal_pair(a, b):
    """Two numbers, float32, of the standard normal distribution from two words, uint32, by Box and Muller (1958)."""
    # The logarithm in float64: near 1, where the radius is small, the fast one of float32 loses it.
    uniform = ((a >> 8).to(tl.float64) + 1.0) / 16777216.0
    radius = tl.sqrt_rn((-2.0 * tl.log(uniform)).to(tl.float32))
    sine, cosine = sine_cosine_of_turn((b >> 8).to(tl.int32))
    return radius * cosine, radius * sine
