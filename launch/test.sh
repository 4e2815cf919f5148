#!/usr/bin/env bash
# Sets everything up, then checks the style and runs the tests.
#
#   bash launch/test.sh [PYTEST ARGUMENTS]
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/setup.sh
set_up

export JAX_PLATFORMS=cpu TF_CPP_MIN_LOG_LEVEL=3
# A read-only checkout takes no caches.
CACHE=()
[ -w . ] || {
  CACHE=(-p no:cacheprovider)
  export RUFF_NO_CACHE=true PYTHONDONTWRITEBYTECODE=1
}
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check --quiet .
"$PYTHON" -m ty check --quiet --python "$PYTHON"
# One process per core, up to four, because the tests mostly compile, and one
# for each 5 GB of memory, which is what a process comes to hold.
CORES=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
KILOBYTES=$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo 2>/dev/null ||
  echo "$(($(sysctl -n hw.memsize 2>/dev/null || echo 0) / 1024))")
PROCESSES=$((CORES < 4 ? CORES : 4))
if [ "${KILOBYTES:-0}" -gt 0 ]; then
  BY_MEMORY=$((KILOBYTES / 5000000))
  PROCESSES=$((BY_MEMORY < PROCESSES ? BY_MEMORY : PROCESSES))
fi
exec "$PYTHON" -m pytest -n "$((PROCESSES < 1 ? 1 : PROCESSES))" \
  --dist loadfile --no-loadscope-reorder --durations=15 \
  ${CACHE[@]+"${CACHE[@]}"} "$@"
