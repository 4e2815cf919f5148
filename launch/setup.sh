# Makes .venv and installs the pinned packages; sourced by demo.sh and test.sh.
# Does nothing when they are already in. Sets $PYTHON to the environment's own.

find_python() {
  local candidate
  for candidate in "${CDM_PYTHON:-}" python3 python3.13 python3.12 python3.11 \
    python; do
    [ -n "$candidate" ] || continue
    if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -c \
      'import sys; sys.exit(not (3, 11) <= sys.version_info[:2])' \
      2>/dev/null; then
      command -v "$candidate"
      return 0
    fi
  done
  echo "cdm needs Python 3.11 or newer and found none." >&2
  echo "Install it, or name it: CDM_PYTHON=/path/to/python3 bash $0" >&2
  return 1
}

set_up() {
  local base stamp wanted
  stamp=.venv/.cdm-installed
  wanted=$(cat pyproject.toml constraints.txt launch/setup.sh | cksum)
  PYTHON=$PWD/.venv/bin/python
  if [ -x "$PYTHON" ] && [ "$(cat $stamp 2>/dev/null)" = "$wanted" ]; then
    echo "Packages: already installed in .venv."
    return 0
  fi
  base=$(find_python) || return 1
  echo "Packages: installing into .venv with $("$base" --version)" \
    "(about 2.5 GB; a minute or a few) ..."
  if ! "$base" -m venv .venv; then
    echo "Could not make .venv. On Debian and Ubuntu: apt install" \
      "python3-venv; or name another Python with CDM_PYTHON." >&2
    return 1
  fi
  "$PYTHON" -m pip install --quiet --disable-pip-version-check \
    --constraint constraints.txt --editable '.[tensorflow,dev]' || {
    echo "The installation failed; the lines above say why. Running this" \
      "command again continues it." >&2
    return 1
  }
  printf '%s' "$wanted" > $stamp
  echo "Packages: installed."
}
