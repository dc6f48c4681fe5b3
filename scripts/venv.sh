#!/bin/sh
# venv.sh EXTRA...: .venv with cellwall (editable) and these extras of pyproject.toml. Does nothing where that is done already.
#
# A stamp per extra holds it: pip runs again once pyproject.toml is newer than the stamp.
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

# Running it is the only proof: version managers put a `python3.12` on PATH that only says it isn't installed.
usable() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' >/dev/null 2>&1; }

find_python() {
    for candidate in ${CELLWALL_PYTHON:-} python3 python3.11 python3.12 python3.13 python3.14; do
        if usable "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    found=$(python3 --version 2>/dev/null || echo "no python3 at all")
    say "cellwall needs Python 3.11, 3.12, 3.13 or 3.14 and found $found: install one, or name it with CELLWALL_PYTHON=/path/to/python"
    exit 1
}

# Debian and Ubuntu ship venv and ensurepip in a package of their own.
ensure_venv_module() {
    if "$1" -c 'import ensurepip, venv' 2>/dev/null; then
        return
    fi
    package=$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if ! command -v apt-get >/dev/null 2>&1; then
        say "$1 has no venv module: install it (Debian and Ubuntu call it $package)"
        exit 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        say "$1 has no venv module: run 'sudo apt-get install $package' and try again"
        exit 1
    fi
    say "installing $package"
    sh scripts/system-packages.sh --required "$package"
}

wanted=
for extra in "$@"; do
    stamp=.venv/.cellwall-$extra
    if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
        wanted="${wanted:+$wanted,}$extra"
    fi
done
# The interpreter of a venv is a link: an upgrade or a removal of the system's Python leaves it dangling.
if [ -z "$wanted" ] && .venv/bin/python -c '' 2>/dev/null; then
    exit 0
fi

if [ ! -w . ] || { [ -e .venv ] && [ ! -w .venv ]; }; then
    say "$(pwd) can't be written by $(id -un), and .venv belongs there: use a checkout of your own (git clone or cp -r)"
    exit 1
fi
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    ensure_venv_module "$python"
    say "creating .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv
    wanted=$(echo "$*" | tr ' ' ',')
fi

say "installing cellwall[$wanted] into .venv"
.venv/bin/python -m pip install -qq --disable-pip-version-check --root-user-action=ignore --editable ".[$wanted]"
for extra in "$@"; do
    touch ".venv/.cellwall-$extra"
done
