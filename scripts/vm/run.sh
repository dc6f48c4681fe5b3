#!/bin/bash
# vm/run.sh [root|tester] [COMMAND...]: runs COMMAND (default: pytest) in a throw-away Debian with systemd and cgroup v2 only.
# vm/run.sh [root|tester] notebooks [NOTEBOOK...]: runs the tutorials there, twice, and compares the two rounds.
#
# For machines that have neither: continuous integration with cgroup v1, containers without systemd. The virtual machine is
# User-mode Linux, an ordinary program, so it needs no KVM; it does not confine what runs in it. Inside, `tester` (uid 1000) has
# subordinate ids, a lingering user manager and delegated controllers. Without a user both run: root, then tester.
# Everything that is built is kept in CELLWALL_VM_CACHE (default /var/tmp/cellwall-vm); nothing of a run is.
set -euo pipefail
cd "$(dirname "$0")/../.."

: "${CELLWALL_VM_CACHE:=/var/tmp/cellwall-vm}"
: "${CELLWALL_VM_SUITE:=bookworm}"      # the machine's Debian
: "${CELLWALL_VM_UML_SUITE:=forky}"     # whose User-mode Linux has the seccomp mode (Linux 6.16 and newer)
: "${CELLWALL_VM_MEMORY:=3G}"
HOST_PACKAGES="mmdebstrap e2fsprogs patchelf kmod util-linux"
GUEST_PACKAGES=systemd,systemd-sysv,libpam-systemd,dbus,dbus-user-session,udev,kmod,python3,python3-venv,fuse3,busybox-static
GUEST_PACKAGES+=,$(sed 's/#.*//' tests/system-packages.txt | tr -s ' \n' ',' | sed 's/^,//; s/,$//')

say() { printf 'make vm: %s\n' "$*" >&2; }

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null || [ "$(uname -m)" != x86_64 ]; then
    say "needs root on an x86_64 Debian or Ubuntu"
    exit 1
fi

# Downloads a package of another Debian release and unpacks it, leaving this machine's own apt alone.
fetch_package() { # SUITE PACKAGE FOLDER
    local apt=$CELLWALL_VM_CACHE/apt-$1 mirror
    local options=(-qq -o "Dir=$apt" -o "Dir::State::status=$apt/status" -o APT::Sandbox::User=root -o Acquire::Languages=none)
    if [ ! -e "$apt/updated" ]; then
        mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)
        mkdir -p "$apt"/etc/apt/{apt.conf.d,preferences.d,trusted.gpg.d} "$apt"/var/lib/apt/lists/partial "$apt"/var/cache/apt/archives/partial
        : >"$apt/status"
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $1 main" >"$apt/etc/apt/sources.list"
        apt-get "${options[@]}" update
        touch "$apt/updated"
    fi
    local temporary
    temporary=$(mktemp -d "$CELLWALL_VM_CACHE/package.XXXXXX")
    (cd "$temporary" && apt-get "${options[@]}" download "$2")
    mkdir -p "$3"
    dpkg-deb -x "$temporary"/*.deb "$3"
    rm -r "$temporary"
}

build_kernel() {
    local uml=$CELLWALL_VM_CACHE/uml libraries=$CELLWALL_VM_CACHE/uml/libc/usr/lib/x86_64-linux-gnu
    [ ! -x "$uml/linux" ] || return 0
    say "fetching User-mode Linux"
    fetch_package "$CELLWALL_VM_UML_SUITE" user-mode-linux "$uml/package"
    fetch_package "$CELLWALL_VM_UML_SUITE" libc6 "$uml/libc"
    # Its libc is newer than this machine's, so it gets one of its own.
    cp "$uml/package/usr/bin/linux.uml" "$uml/linux.tmp"
    patchelf --set-interpreter "$libraries/ld-linux-x86-64.so.2" --set-rpath "$libraries" "$uml/linux.tmp"
    mv "$uml/linux.tmp" "$uml/linux"
}

# The test dependencies as wheels, fetched with this machine's pip and its settings: the virtual machine has no network.
fetch_wheels() { # ROOT FOLDER
    local version requirements
    version=$(chroot "$1" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    mapfile -t requirements < <(.venv/bin/python - <<'PY'
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
print(*project["dependencies"], *project["optional-dependencies"]["test"], sep="\n")
PY
    )
    .venv/bin/python -m pip download -qq --only-binary=:all: --python-version "$version" -d "$2" "${requirements[@]}"
}

build_image() {
    local root=$CELLWALL_VM_CACHE/root image=$CELLWALL_VM_CACHE/root.img want
    want=$(cat pyproject.toml scripts/vm/guest-* tests/system-packages.txt | sha256sum)
    [ "$(cat "$image.stamp" 2>/dev/null)" != "$want$CELLWALL_VM_SUITE" ] || return 0
    say "building the disk image ($CELLWALL_VM_SUITE)"
    rm -rf "$root" "$image.stamp"
    mmdebstrap --quiet --variant=minbase --mode=root --include="$GUEST_PACKAGES" --aptopt='Acquire::Languages "none"' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' "$CELLWALL_VM_SUITE" "$root"
    mkdir "$root/wheels"
    fetch_wheels "$root" "$root/wheels"
    sh scripts/vm/guest-setup.sh "$root" scripts/vm/guest-job
    rm -r "$root/wheels"
    mkdir -p "$root/lib/modules"
    cp -a "$CELLWALL_VM_CACHE"/uml/package/usr/lib/uml/modules/* "$root/lib/modules/"
    for modules in "$root"/lib/modules/*; do chroot "$root" depmod "${modules##*/}"; done
    rm -f "$image"
    truncate -s 10G "$image"
    mke2fs -q -F -t ext4 -m 0 -O ^has_journal -E lazy_itable_init=1 -d "$root" "$image"
    rm -rf "$root"
    echo "$want$CELLWALL_VM_SUITE" >"$image.stamp"
}

# The image that the tutorials build on: made here, for the virtual machine has no network.
build_base() {
    local base=$CELLWALL_VM_CACHE/base.tar store
    [ ! -e "$base" ] || return 0
    say "making the tutorials' image"
    store=$(mktemp -d "$CELLWALL_VM_CACHE/store.XXXXXX")
    CELLWALL_ROOT=$store .venv/bin/python -m cellwall bootstrap -y -q debian:trixie
    CELLWALL_ROOT=$store .venv/bin/python -m cellwall save -o "$base.part" debian:trixie
    rm -r "$store"
    chmod 644 "$base.part"
    mv "$base.part" "$base"
}

# Boots, runs /ctl/job, powers off. The job's output is the machine's first serial line; its status is a file.
boot() { # USER COMMAND...
    local folder shares
    folder=$(mktemp -d "$CELLWALL_VM_CACHE/run.XXXXXX")
    shares=$(mktemp -d /dev/shm/cellwall-vm.XXXXXX)
    # shellcheck disable=SC2064 # the folders of this run, now
    trap "rm -rf '$folder' '$shares'" RETURN EXIT
    mkdir "$shares/project" "$shares/ctl"
    git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --ignore-failed-read -cf "$shares/project/tree.tar" 2>/dev/null
    printf '%s\n' "$1" >"$shares/ctl/user"
    shift
    printf '%q ' "$@" >"$shares/ctl/command"
    [ -z "$base" ] || cp "$base" "$shares/ctl/base.tar"
    # In a pid namespace of its own, so that no process of the machine outlives this one.
    TMPDIR=/dev/shm unshare --pid --fork --kill-child=KILL -- "$CELLWALL_VM_CACHE/uml/linux" \
        "mem=$CELLWALL_VM_MEMORY" umid=vm "uml_dir=$folder/" "ubd0=$folder/cow,$CELLWALL_VM_CACHE/root.img" root=/dev/ubda rw \
        con=null con0=null,fd:2 ssl=null ssl0=null,fd:1 "hostfs=$shares" seccomp=on \
        systemd.unified_cgroup_hierarchy=1 systemd.show_status=0 systemd.log_target=kmsg panic=-1 quiet \
        </dev/null 2>"$folder/console" || true
    if [ ! -s "$shares/ctl/status" ]; then
        tail -n 40 "$folder/console" >&2
        say "the machine ended without an answer"
        return 125
    fi
    return "$(cat "$shares/ctl/status")"
}

sh scripts/system-packages.sh --required $HOST_PACKAGES
sh scripts/venv.sh test
mkdir -p "$CELLWALL_VM_CACHE"
exec 9>"$CELLWALL_VM_CACHE/lock"
flock 9
build_kernel
build_image
users="root tester"
case ${1:-} in
root | tester)
    users=$1
    shift
    ;;
esac
base=
if [ "${1:-}" = notebooks ]; then
    shift
    build_base
    base=$CELLWALL_VM_CACHE/base.tar
    set -- python notebooks/check.py --user '' --base /mnt/ctl/base.tar "$@"
fi
flock -u 9
[ $# -gt 0 ] || set -- python -m pytest -p no:cacheprovider --timeout 1200
status=0
for user in $users; do
    say "as $user: $*"
    boot "$user" "$@" || status=$?
done
exit "$status"
