# shellcheck shell=bash
# Makes .venv and installs the pinned packages; sourced by demo.sh and test.sh.
# Does nothing when they are already in. Sets $PYTHON to the environment's own.
#
# CDM_PYTHON names the Python to build on, CDM_VENV another place than .venv.
# It keeps to bash 3.2, which is what macOS has.

# Without a home, pip and uv would make a folder for their caches in this one.
[ -n "${HOME:-}" ] || export PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1
# The Pythons that the pins support, the first choice first.
PYTHONS='3.13 3.12 3.11 3.14'
# What modules of a cluster set for another Python would be found by this one.
unset PIP_USER PIP_TARGET PIP_PREFIX PYTHONPATH PYTHONHOME

refuse() {
  printf '%s\n' "$@" >&2
  return 1
}

# Refuses a machine that JAX has no packages for, before anything is downloaded.
check_machine() {
  local system machine libc minor
  system=$(uname -s) machine=$(uname -m)
  case $system in
    Linux | Darwin) ;;
    MINGW* | MSYS* | CYGWIN*)
      refuse "cdm runs on Linux and macOS, and this is Windows ($system)." \
        "Install WSL2 (in PowerShell: wsl --install) and start this there."
      return 1
      ;;
    *)
      refuse "cdm runs on Linux and macOS, and this is $system, for which JAX" \
        "has no packages. Use a Linux container or another machine."
      return 1
      ;;
  esac
  if [ "$system" = Darwin ]; then
    # An Intel Python on Apple silicon sees x86_64 too, so the chip is asked.
    if [ "$(sysctl -n hw.optional.arm64 2>/dev/null)" != 1 ]; then
      refuse "This is a Mac with an Intel processor, for which JAX has no" \
        "packages. Use Docker (launch/launch.py docker) or a Linux machine."
      return 1
    fi
    return 0
  fi
  case $machine in
    x86_64 | amd64 | aarch64 | arm64) ;;
    *)
      refuse "JAX has no packages for Linux on $machine; use a machine with" \
        "x86-64 or 64-bit ARM."
      return 1
      ;;
  esac
  libc=$(getconf GNU_LIBC_VERSION 2>/dev/null) || true  # such as: glibc 2.36
  if [ -z "$libc" ]; then
    refuse "This Linux has no glibc (Alpine has musl instead), which JAX's" \
      "packages need. Use an image of Debian or Ubuntu, such as python:3.13."
    return 1
  fi
  minor=${libc##*.}
  if [ "${libc%.*}" = 'glibc 2' ] && [ "$minor" -lt 28 ]; then
    refuse "This Linux has $libc, and the packages need glibc 2.28 or newer" \
      "(Debian 10, Ubuntu 20.04, RHEL 8). Use a newer system or a container."
    return 1
  fi
}

# Prints version, machine, width and kind of a Python: 3.11 x86_64 64 CPython.
describe_python() {
  "$1" -c 'import platform, struct, sys
print("%d.%d %s %d %s" % (sys.version_info[0], sys.version_info[1],
  platform.machine(), 8 * struct.calcsize("P"),
  platform.python_implementation()))' 2>/dev/null
}

# Prints why a Python cannot be used, or nothing if it can.
fault_of() {
  local found version rest reason
  found=$(describe_python "$1") || true
  version=${found%% *} rest=${found#* }
  if [ -z "$version" ]; then
    reason=$("$1" -c '' 2>&1 | tail -n 1) || true
    echo "does not start${reason:+ ($reason)}"
    return 0
  fi
  case " $PYTHONS " in
    *" $version "*) ;;
    *)
      echo "is $version"
      return 0
      ;;
  esac
  case $rest in
    *' 32 '*) echo "is a Python of 32 bits; JAX needs one of 64 bits" ;;
    *' 64 CPython') ;;
    *) echo "is ${found##* }; JAX needs CPython" ;;
  esac
  if [ "$(uname -s)" = Darwin ] && [ "${rest%% *}" = x86_64 ]; then
    echo "is built for Intel processors and runs under Rosetta; install one" \
      "for Apple silicon, such as: brew install python@3.13"
  fi
}

find_python() {
  local candidate fault seen=''
  if [ -n "${CDM_PYTHON:-}" ]; then
    fault=$(fault_of "$CDM_PYTHON")
    if [ -n "$fault" ]; then
      refuse "CDM_PYTHON=$CDM_PYTHON $fault. cdm needs one of Python" \
        "$PYTHONS; name another, or unset CDM_PYTHON to have one searched for."
      return 1
    fi
    command -v "$CDM_PYTHON"
    return 0
  fi
  for candidate in $PYTHONS 3 ''; do
    candidate=python$candidate
    command -v "$candidate" >/dev/null 2>&1 || continue
    fault=$(fault_of "$candidate")
    if [ -z "$fault" ]; then
      command -v "$candidate"
      return 0
    fi
    seen="$seen $candidate $fault."
  done
  refuse "cdm needs one of Python $PYTHONS and found none." \
    "${seen:+Found:$seen }Install one (Debian, Ubuntu: apt install python3" \
    "python3-venv; Fedora: dnf install python3.13; macOS: brew install" \
    "python@3.13; without being root: uv python install 3.13), or name it:" \
    "CDM_PYTHON=/path/to/python3 bash $0"
}

# Makes the environment with the Python $1, and sets INSTALLER to the words of
# the command that installs into it.
make_environment() {
  local base=$1 clear='' version
  if [ -e "$VENV" ]; then
    if [ ! -e "$VENV/pyvenv.cfg" ] && [ -n "$(ls -A "$VENV")" ]; then
      refuse "$VENV exists and is not an environment of Python. Move it" \
        "away, or name another place: CDM_VENV=/path/to/folder bash $0"
      return 1
    fi
    clear=--clear
  fi
  mkdir -p "$VENV" 2>/dev/null || true
  if [ ! -w "$VENV" ]; then
    refuse "The environment cannot be written to $VENV. Name another place:" \
      "CDM_VENV=/path/to/folder bash $0"
    return 1
  fi
  if "$base" -c 'import ensurepip, venv' 2>/dev/null; then
    "$base" -m venv $clear "$VENV" || return 1
    INSTALLER=("$PYTHON" -m pip install --quiet --disable-pip-version-check)
  elif command -v uv >/dev/null 2>&1; then
    uv venv --quiet --clear --python "$base" "$VENV" || return 1
    INSTALLER=(uv pip install --quiet --python "$PYTHON")
  elif "$base" -c 'import venv' 2>/dev/null && "$base" -m pip --version \
    >/dev/null 2>&1; then
    "$base" -m venv $clear --without-pip "$VENV" || return 1
    # This pip works on the environment, as if it were installed there.
    INSTALLER=("$base" -m pip --python "$PYTHON" install --quiet
      --disable-pip-version-check)
  else
    version=$(describe_python "$base")
    version=${version%% *}
    refuse "$base has no ensurepip and no pip, so no environment can be made." \
      "Debian, Ubuntu: apt install python$version-venv. Without being root:" \
      "install uv, which this script then uses, or name another Python with" \
      "CDM_PYTHON."
    return 1
  fi
}

# Sets INSTALLER for an environment that exists.
find_installer() {
  if "$PYTHON" -m pip --version >/dev/null 2>&1; then
    INSTALLER=("$PYTHON" -m pip install --quiet --disable-pip-version-check)
  elif command -v uv >/dev/null 2>&1; then
    INSTALLER=(uv pip install --quiet --python "$PYTHON")
  else
    INSTALLER=("$(find_python)" -m pip --python "$PYTHON" install --quiet
      --disable-pip-version-check)
  fi
}

# Installs cdm: the checkout itself, or a copy if the checkout is read-only,
# because building writes beside the sources.
install_packages() {
  local source=. editable=--editable copy='' code=0
  if [ ! -w . ]; then
    copy=$(mktemp -d) source=$copy editable=''
    cp -R pyproject.toml README.md LICENSE cdm "$copy"
    chmod -R u+w "$copy"
  fi
  # shellcheck disable=SC2086  # an empty word must vanish
  "${INSTALLER[@]}" --constraint constraints.txt \
    $editable "${source}[tensorflow,dev]" || code=1
  [ -z "$copy" ] || rm -rf "$copy"
  return $code
}

set_up() {
  local base='' now stamp files wanted found
  VENV=${CDM_VENV:-.venv}
  case $VENV in
    /*) ;;
    *) VENV=$PWD/$VENV ;;
  esac
  PYTHON=$VENV/bin/python stamp=$VENV/.cdm-installed
  if [ -w . ]; then
    files=$(cat pyproject.toml constraints.txt launch/setup.sh | cksum)
  else  # The copy that is installed must be the present one.
    files=$(find pyproject.toml constraints.txt launch/setup.sh cdm -type f \
      -exec cksum {} + | sort | cksum)
  fi
  # A Python that was replaced since has another version, or does not start.
  now=$(describe_python "$PYTHON") || true
  wanted="$now, files $files"
  found=$(cat "$stamp" 2>/dev/null) || true
  if [ -n "${CDM_PYTHON:-}" ]; then
    base=$(find_python) || return 1
    [ "$(describe_python "$base")" = "$now" ] || now=''
  fi
  if [ -n "$now" ] && [ "$found" = "$wanted" ]; then
    echo "Packages: already installed in $VENV."
    return 0
  fi
  check_machine || return 1
  if [ -n "$now" ] && [ "${found%%, files*}" = "$now" ]; then
    find_installer
  else
    [ -n "$base" ] || base=$(find_python) || return 1
    [ -z "$found" ] || echo "Packages: $VENV is of another Python, and is" \
      "made anew."
    make_environment "$base" || return 1
  fi
  now=$(describe_python "$PYTHON")
  echo "Packages: installing into $VENV with Python ${now%% *} (about 2.5 GB;" \
    "a minute or a few) ..."
  install_packages || {
    refuse "The installation failed; the lines above say why. Running this" \
      "command again continues it."
    return 1
  }
  printf '%s' "$now, files $files" > "$stamp"
  echo "Packages: installed."
}
