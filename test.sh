#!/bin/sh
# Lint, types and tests, as continuous integration runs them. Arguments go to pytest: `bash test.sh -m slow`.
set -eu
cd "$(dirname "$0")"
. ./setup.sh
export OMP_NUM_THREADS=1 # pytest runs a process per core; more threads than cores stall each other
ruff check .
ruff format --check .
mypy
python -m pytest -n "$(nproc)" --dist loadfile "$@" # a file's tests share what its fixtures made
