"""How close our numbers must be to the original's, and why that is close enough to detect a change of 1 %.

Outputs: 1e-4 absolute; gradients: 1e-3 relative and 1e-6 absolute; probes: 1e-4 relative. Two of these depend on
the size of the values:

* An output whose largest value is below 0.02 must agree to half a percent of that value, else 1 % would pass.
* A gradient is a sum over tokens, and its rounding error scales with the tensor's largest values, whatever the size of
  a single one. The reference's own differ from float64 by up to 2.4e-5 of the largest, which for a value near zero
  is up to twice the tolerance above. So 1e-4 of the tensor's largest value is allowed where that is above 1e-6: a
  hundredth of a change of 1 %.

The gradient of a key's bias is zero, because softmax is invariant to it; both sides contain rounding errors of 1e-8. A
change of such a tensor shows in its norm in ``info.json``.
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
    """Fail unless integers are equal, and other values within the tolerance above."""
    if not golden.is_floating_point():
        assert torch.equal(ours.to(golden.dtype), golden), f"{what}: differs"
        return
    atol = min(OUTPUT, OF_LARGEST_OUTPUT * largest(golden))
    torch.testing.assert_close(ours, golden, atol=atol, rtol=0.0, msg=lambda m: f"{what}: {m}")


def assert_gradient(ours: Tensor, golden: Tensor, what: str) -> None:
    """Fail unless a gradient is within the tolerance above."""
    atol = max(GRADIENT, OF_LARGEST_GRADIENT * largest(golden))
    torch.testing.assert_close(ours, golden, atol=atol, rtol=GRADIENT_RELATIVE, msg=lambda m: f"{what}: {m}")


def largest(values: Tensor) -> float:
    return values.abs().max().item()
