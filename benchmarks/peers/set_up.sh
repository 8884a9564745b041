#!/usr/bin/env bash
# A virtual environment of its own for the peers: they need not be installed for the library or its tests.
#
#   bash benchmarks/peers/set_up.sh [folder]     # default: .venv-peers beside the Makefile
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
venv="${1:-$root/.venv-peers}"
cd "$root"
"${PYTHON:-python3}" -m venv "$venv"
install=("$venv/bin/python" -m pip --disable-pip-version-check install -qq --constraint constraints.txt)
# Torch first and by its exact version, so that no peer's range draws in another, larger one.
"${install[@]}" "$(grep '^torch==' constraints.txt)"
"${install[@]}" hatchling editables
"${install[@]}" --requirement benchmarks/peers/requirements.txt
"${install[@]}" --no-build-isolation --editable .
"$venv/bin/python" -m pip --disable-pip-version-check check
echo "Ready: $venv/bin/python benchmarks/peers/compare.py throughput"
