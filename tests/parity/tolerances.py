"""How near our numbers have to be to the original's, and why that is near enough to notice a change of 1 %.

Outputs: 1e-4 absolute; gradients: 1e-3 relative and 1e-6 absolute; probes: 1e-4 relative. Two of these are made to fit
the size of what is compared:

* An output whose largest value is below 0.02 has to agree to half a percent of that value, else 1 % would pass.
* A gradient is a sum over tokens, and its rounding error goes with the tensor's largest values, whatever the size of
  the single one. The reference's own lie up to 2.4e-5 of the largest from those in float64, which next to a value near
  zero is up to twice the tolerance above. So 1e-4 of the tensor's largest value is allowed where that is above 1e-6:
  a hundredth of what 1 % changes.

The gradient of a key's bias is zero, as softmax does not see it; both sides hold rounding errors of 1e-8. That such a
tensor was changed shows in its norm in ``info.json``.
"""

from __future__ import annotations

import torch
from torch import Tensor

OUTPUT = 1e-4
OF_LARGEST_OUTPUT = 5e-3
GRADIENT = 1e-6
GRADIENT_RELATIVE = 1e-3
OF_LARGEST_GRADIENT = 1e-4
PROBE_RELATIVE = 1e-4
PROBE = 1e-6
"""Absolute, for values where weight and bias cancel: ten times the rounding error of a value of 1."""


def assert_output(ours: Tensor, golden: Tensor, what: str) -> None:
    """Fail unless whole numbers are equal, and others as near as said above."""
    if not golden.is_floating_point():
        assert torch.equal(ours.to(golden.dtype), golden), f"{what}: differs"
        return
    atol = min(OUTPUT, OF_LARGEST_OUTPUT * largest(golden))
    torch.testing.assert_close(ours, golden, atol=atol, rtol=0.0, msg=lambda m: f"{what}: {m}")


def assert_gradient(ours: Tensor, golden: Tensor, what: str) -> None:
    """Fail unless a gradient is as near as said above."""
    atol = max(GRADIENT, OF_LARGEST_GRADIENT * largest(golden))
    torch.testing.assert_close(ours, golden, atol=atol, rtol=GRADIENT_RELATIVE, msg=lambda m: f"{what}: {m}")


def largest(values: Tensor) -> float:
    return values.abs().max().item()
