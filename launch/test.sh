#!/usr/bin/env bash
# Sets everything up, then checks the style and runs the tests.
#
#   bash launch/test.sh [PYTEST ARGUMENTS]
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/setup.sh
set_up

export JAX_PLATFORMS=cpu TF_CPP_MIN_LOG_LEVEL=3
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check --quiet .
"$PYTHON" -m ty check --quiet --python "$PYTHON"
# One process per core, up to four: the tests mostly compile.
CORES=$(nproc 2>/dev/null || echo 2)
exec "$PYTHON" -m pytest -n "$((CORES < 4 ? CORES : 4))" --dist loadfile \
  --no-loadscope-reorder --durations=15 "$@"
