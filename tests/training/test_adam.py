from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelnative.training.adam import BETAS, EPSILON, MOMENTS, Adam, clipped_adam

SHAPES = [(3, 4), (5,), (1, 1), (64, 17)]


@given(st.integers(0, 10**6), st.integers(1, 5), st.sampled_from([math.inf, 100.0, 0.5]))
@settings(deadline=None)
def test_the_numbers_are_those_of_torch(seed: int, steps: int, most: float) -> None:
    """Bit for bit by the plain definition, which is torch's own; the kernel's up to rounding."""
    generator = torch.Generator().manual_seed(seed)
    theirs = [torch.randn(shape, generator=generator) for shape in SHAPES]
    plain, ours = ([parameter.clone() for parameter in theirs] for _ in range(2))
    one, other = Adam(ours, 0.1), torch.optim.Adam(theirs, lr=0.1, eps=1e-5, fused=True)
    moments = {name: [torch.zeros_like(p) if name != "step" else torch.zeros(()) for p in plain] for name in MOMENTS}
    for step in range(steps):
        gradients = [torch.randn(shape, generator=generator) for shape in SHAPES]
        whole = torch.cat([gradient.flatten() for gradient in gradients])
        scale = (most / (whole.norm() + 1e-6)).clamp_max(1.0)
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient * scale
        one.lr = other.param_groups[0]["lr"] = 0.1 / (1 + step)
        norm = one.step(gradients, most)
        counts, averages, squares = moments.values()
        definition = clipped_adam.__wrapped__  # type: ignore[attr-defined]
        expected = definition(plain, gradients, averages, squares, counts, one.lr, most, *BETAS, EPSILON)
        torch.testing.assert_close(norm, expected)
        other.step()
        if step == 0:  # as after an interruption
            kept = one.moments
            one = Adam(ours, 0.1)
            one.load(kept)
    for index, parameter in enumerate(theirs):
        assert torch.equal(plain[index], parameter)
        torch.testing.assert_close(ours[index], parameter, rtol=1e-4, atol=1e-5)
        for name in MOMENTS:
            assert torch.equal(moments[name][index], other.state[parameter][name])
            torch.testing.assert_close(one.moments[name][index], moments[name][index], rtol=1e-4, atol=1e-7)


def test_moments_of_another_shape_are_refused() -> None:
    optimizer = Adam([torch.zeros(3)], 0.1)
    with pytest.raises(ValueError, match=r"exp_avg has shape \[4\], its parameter \[3\]"):
        optimizer.load({"step": [torch.zeros(())], "exp_avg": [torch.zeros(4)], "exp_avg_sq": [torch.zeros(3)]})


def test_a_training_does_not_import_the_compiler_of_torch() -> None:
    code = (
        "import sys, modelnative as mn\n"
        "config = mn.TrainConfig(updates=1, episodes=8)\n"
        "list(mn.Trainer(mn.make('arithmetic'), config))\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
