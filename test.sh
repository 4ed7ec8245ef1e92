#!/bin/sh
# Lint, types and tests, as continuous integration runs them. Arguments go to pytest: `bash test.sh -m slow`.
set -eu
CDPATH= cd -- "$(dirname -- "$0")"
. ./setup.sh
processes=$(env -u OMP_NUM_THREADS nproc) # nproc obeys that variable
export OMP_NUM_THREADS=1                  # more threads than cores stall each other
ruff check .
ruff format --check .
mypy
python -m pytest -n "$processes" --dist loadfile "$@" # a file's tests share what its fixtures made
