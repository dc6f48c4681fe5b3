#!/bin/sh
# system-packages.sh FILE...: installs the Debian packages that FILE lists (one a line, # starts a comment).
# system-packages.sh --required PACKAGE...: the same for named ones, and fails where one can't be had.
#
# Without root or apt-get it says so in one line and goes on: the tests that need them skip, and say why.
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

required=
if [ "$1" = --required ]; then
    required=yes
    shift
    wanted=$*
else
    wanted=$(sed 's/#.*//' "$@" | tr -s ' \t\n' ' ')
fi

if ! command -v dpkg-query >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then
    say "system packages: no apt here, so tests that need one of them skip: $wanted"
    exit 0
fi

missing=
for package in $wanted; do
    case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true) in
    installed) ;;
    *) missing="${missing:+$missing }$package" ;;
    esac
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    say "system packages: only root can install these, so tests that need one of them skip: $missing"
    exit 0
fi

export DEBIAN_FRONTEND=noninteractive
apt() { apt-get -qq -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 "$@"; }

# A new machine or container image comes without package lists.
if [ -z "$(find /var/lib/apt/lists -name '*_Packages*' -print -quit 2>/dev/null)" ]; then
    say "system packages: reading the package lists"
    apt update >&2 || say "system packages: apt-get update failed"
fi

# One package that this release doesn't have must not keep the others away.
available=
for package in $missing; do
    if [ -n "$(apt-cache policy "$package" 2>/dev/null | grep 'Candidate: [^(]')" ]; then
        available="${available:+$available }$package"
    else
        say "system packages: this release has no $package"
        [ -z "$required" ] || exit 1
    fi
done
[ -n "$available" ] || exit 0

# Some of these packages start a service when they are installed; tests start their own. The policy file is the one way
# that holds with and without systemd; a machine that has one already keeps it.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM HUP
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

say "system packages: installing $available"
log=$(mktemp)
# shellcheck disable=SC2086 # a list of package names, split on purpose
if ! apt install -y --no-install-recommends $available >"$log" 2>&1; then
    # Lists that have grown old name files that the archive no longer has.
    apt update >&2 || true
    if ! apt install -y --no-install-recommends $available >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        say "system packages: apt-get install failed"
        [ -z "$required" ] || exit 1
        exit 0
    fi
fi
rm -f "$log"
