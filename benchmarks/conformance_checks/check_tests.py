"""The tests of the bridges, by pytest, in the environments of the packages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from conformance_registry import check

ROOT = Path(__file__).resolve().parents[2]
FILES = {  # the tests of a package, beside those of the messages about missing and untested packages
    ("trl", "trl"): ["trl", "transcripts"],
    ("verl", "verl"): ["verl"],
    ("reasoning-gym", "reasoning_gym"): ["reasoning_gym"],
    ("verifiers", "verifiers"): [],
    ("openenv", "openenv"): [],
    ("inspect_ai", "inspect_ai"): [],
}


def run_tests(names: list[str]) -> str:
    files = ["tests/test_extras.py", *(f"tests/bridges/test_{name}.py" for name in names)]
    # Warnings of the packages are theirs; a test that is about a warning catches it.
    command = [sys.executable, "-m", "pytest", "-q", "-W", "default", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)
    found = re.search(r"^(?:=+ )?(.*\d+ passed.*) in [\d.]+s", done.stdout, re.MULTILINE)
    failures = "; ".join(re.findall(r"^(?:FAILED|ERROR) (.*)", done.stdout, re.MULTILINE))
    assert done.returncode == 0, failures or done.stdout[-1500:] + done.stderr[-500:]
    assert found, done.stdout[-500:]
    return re.sub(r", \d+ warnings?", "", found[1])


for (package, module), names in FILES.items():
    described = ", ".join(f"`{name}`" for name in ["test_extras", *(f"test_{name}" for name in names)])
    check(package, module, f"tests by pytest: {described}")(lambda names=names: run_tests(names))  # type: ignore[misc]
