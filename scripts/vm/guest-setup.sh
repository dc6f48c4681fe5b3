#!/bin/sh
# guest-setup.sh ROOT JOB: makes an unpacked Debian with wheels in /wheels into the machine that vm/run.sh boots.
set -eu
root=$1
job=$2

chroot "$root" useradd --create-home --uid 1000 --shell /bin/bash tester
for file in subuid subgid; do
    grep -q '^tester:' "$root/etc/$file" || echo tester:100000:65536 >>"$root/etc/$file"
done
echo vm >"$root/etc/hostname"
printf '127.0.0.1 localhost vm\n::1 localhost\n' >"$root/etc/hosts"
: >"$root/etc/fstab"

# What an administrator writes for containers of ordinary users.
mkdir -p "$root/etc/systemd/system/user@.service.d" "$root/var/lib/systemd/linger" "$root/mnt/project" "$root/mnt/ctl"
printf '[Service]\nDelegate=cpu cpuset io memory pids\n' >"$root/etc/systemd/system/user@.service.d/delegate.conf"
touch "$root/var/lib/systemd/linger/tester"

# Nothing that only costs time at boot, and nothing that writes to the job's line.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
    podman.service podman.socket podman-restart.service podman-auto-update.service podman-auto-update.timer docker-registry.service \
    console-getty.service getty-static.service getty@tty1.service serial-getty@ttyS0.service systemd-networkd.service \
    systemd-timesyncd.service systemd-update-utmp.service systemd-update-utmp-runlevel.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

install -m 755 "$job" "$root/usr/local/sbin/cellwall-job"
cat >"$root/etc/systemd/system/cellwall-job.service" <<'UNIT'
[Unit]
Description=The one job of this machine
After=local-fs.target user@1000.service dbus.service systemd-logind.service
Wants=user@1000.service

[Service]
ExecStart=/usr/local/sbin/cellwall-job
TasksMax=infinity

[Install]
WantedBy=multi-user.target
UNIT
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -sf ../cellwall-job.service "$root/etc/systemd/system/multi-user.target.wants/"

chroot "$root" python3 -m venv /opt/venv
env -u PIP_FIND_LINKS chroot "$root" sh -c '/opt/venv/bin/pip install -q --no-index /wheels/*.whl'
