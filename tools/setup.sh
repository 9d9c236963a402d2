#!/usr/bin/env bash
# Installs what the build needs: system packages, and a local .venv with torch, whose libraries and headers we link.
# A second run only looks: a second or less.   tools/setup.sh [--tests]   (--tests: also what the tests compare with)
set -euo pipefail
cd "$(dirname "$0")/.."
torch_version=2.13.0

say() { echo "setup: $*"; }
refuse() { echo "setup: $*" >&2; exit 1; }

# --- system packages -----------------------------------------------------------------------------------------------
shopt -s nullglob
lists=(tools/packages.txt tools/*-packages.txt)
# Package names; $1 = needed or optional.
listed() {
  local pattern='^[a-z0-9]'
  if [ "$1" = optional ]; then pattern='^\? '; fi
  sed -n -E "/$pattern/{s/^\? *//;s/ *#.*//;s/[[:space:]]+\$//;p}" "${lists[@]}" | sort -u
}
missing() {
  local name
  for name in $(listed "$1"); do
    dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || echo "$name"
  done
}
if [ "$(id -u)" = 0 ]; then as_root=""; else as_root="sudo"; fi

# Tools that answer by name count as installed, wherever they come from (a newer cmake in /usr/local).
answered() { case "$1" in g++|cmake|python3|ccache|mold|chromium|pkg-config) command -v "$1" >/dev/null ;; ninja-build) command -v ninja >/dev/null ;; *) false ;; esac; }
wanted=""
for name in $(missing needed); do answered "$name" || wanted="$wanted $name"; done
# What was refused once is not asked for again until the lists change.
mkdir -p .cache
tried=.cache/optional-$(cat "${lists[@]}" | sha256sum | cut -c1-16)
optional=""
if [ ! -e "$tried" ]; then
  for name in $(missing optional); do answered "$name" || optional="$optional $name"; done
fi
if [ -n "$wanted$optional" ]; then
  if ! command -v apt-get >/dev/null; then
    [ -z "$wanted" ] || refuse "this system has no apt-get; install what corresponds to these Debian packages:$wanted"
  elif [ -n "$as_root" ] && ! command -v sudo >/dev/null; then
    [ -z "$wanted" ] || refuse "neither root nor sudo is at hand; let someone run: apt-get install$wanted"
  else
    say "installing${wanted}${optional}"
    export DEBIAN_FRONTEND=noninteractive
    # Slim images leave out manual pages, translations and licences, which are what the quickstart reads.
    keep=""
    for folder in man locale doc; do keep="$keep -o Dpkg::Options::=--path-include=/usr/share/$folder/*"; done
    set -f
    $as_root apt-get update -qq || say "the package lists could not be renewed; going on with the old ones"
    if [ -n "$wanted" ]; then
      $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $keep $wanted >.cache/apt.log 2>&1 ||
        { tail -20 .cache/apt.log >&2; refuse "packages are missing; try: $as_root apt-get install$wanted"; }
    fi
    for name in $optional; do
      $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $keep "$name" >.cache/apt.log 2>&1 ||
        say "warning: $name was not installed (going on without it); try: $as_root apt-get install $name"
    done
    set +f
  fi
fi
rm -f .cache/optional-* && touch "$tried"

# --- Python and libtorch ------------------------------------------------------------------------------------------
python=.venv/bin/python
if ! $python -c pass 2>/dev/null; then
  say "making .venv"
  "${PYTHON:-python3}" -m venv .venv || refuse "no virtual environment could be made; try: $as_root apt-get install python3-venv"
fi
installed_torch() {
  $python - <<'PY'
import importlib.metadata as m
try:
    print(m.version("torch"))
except m.PackageNotFoundError:
    print("")
PY
}
case "$(installed_torch)" in
  $torch_version | $torch_version+*) ;;
  *)
    # What pip is configured with (an index, a folder of wheels) is used as it is. The `+cpu` build is tried first where
    # there is no NVIDIA driver: it is a tenth of the size. SWITCHYARD_TORCH_INDEX names an index to take torch from.
    index=${SWITCHYARD_TORCH_INDEX:+--index-url $SWITCHYARD_TORCH_INDEX}
    say "installing torch $torch_version (libtorch; a large package)"
    if command -v nvidia-smi >/dev/null || [ -e /proc/driver/nvidia/version ]; then specs="torch==$torch_version"; else specs="torch==$torch_version+cpu torch==$torch_version"; fi
    done=""
    for spec in $specs; do
      if $python -m pip install -q --disable-pip-version-check $index "$spec" 2>.cache/pip.log; then done=yes; break; fi
    done
    [ -n "$done" ] || { tail -5 .cache/pip.log >&2; refuse "torch was not installed; try: $python -m pip install torch==$torch_version (or set SWITCHYARD_TORCH_INDEX to the package index that PyTorch's install page names)"; }
    ;;
esac

# --- what the tests compare with -----------------------------------------------------------------------------------
if [ "${1:-}" = --tests ]; then
  stamp=.venv/tests-$(cat tools/requirements-tests.txt | sha256sum | cut -c1-16)
  if [ ! -e "$stamp" ]; then
    say "installing what the tests compare with"
    if $python -m pip install -q --disable-pip-version-check -r tools/requirements-tests.txt 2>.cache/pip.log; then
      touch "$stamp"
    else
      tail -3 .cache/pip.log >&2
      say "warning: some tests will be skipped; try: $python -m pip install -r tools/requirements-tests.txt"
    fi
  fi
fi
