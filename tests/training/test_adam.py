from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelnative.training.adam import MOMENTS, Adam


@given(st.integers(0, 10**6), st.integers(1, 5))
def test_the_numbers_are_those_of_torch_bit_for_bit(seed: int, steps: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(3, 4), (5,), (1, 1), (64, 17)]
    ours = [torch.randn(shape, generator=generator) for shape in shapes]
    theirs = [parameter.clone() for parameter in ours]
    one, other = Adam(ours, 0.1), torch.optim.Adam(theirs, lr=0.1, eps=1e-5, fused=True)
    for step in range(steps):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        one.lr = other.param_groups[0]["lr"] = 0.1 / (1 + step)
        one.step()
        other.step()
        if step == 0:  # as after an interruption
            kept = one.moments
            one = Adam(ours, 0.1)
            one.load(kept)
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert torch.equal(a, b)
        for name in MOMENTS:
            assert torch.equal(one.moments[name][index], other.state[b][name])


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
