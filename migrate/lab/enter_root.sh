#!/bin/sh
# Makes a host of the local lab out of a root file system. Runs as process 1 of new mount, UTS, IPC
# and PID namespaces, inside the host's network namespace; everything it mounts ends with them.
# Arguments: LOWER UPPER WORK MOUNTPOINT NAME INIT [SOURCE:TARGET:OPTIONS ...]
set -eu
lower=$1 upper=$2 work=$3 mnt=$4 name=$5 init=$6
shift 6
read -r id _ </proc/self/stat # as the machine numbers it: the host's own /proc is yet to come

mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$upper,workdir=$work" "$mnt"
hostname "$name"
mount -t proc proc "$mnt/proc"
mount -t sysfs sysfs "$mnt/sys"
mount -t tmpfs -o mode=755 tmpfs "$mnt/dev"
mkdir "$mnt/dev/pts" "$mnt/dev/net" "$mnt/dev/shm" "$mnt/dev/vfio"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$mnt/dev/pts"
mount -t tmpfs tmpfs "$mnt/dev/shm"
ln -s pts/ptmx "$mnt/dev/ptmx"
ln -s /proc/self/fd "$mnt/dev/fd"
for device in null zero full random urandom tty net/tun kvm vhost-net userfaultfd; do
    if [ -e "/dev/$device" ]; then
        : >"$mnt/dev/$device"
        mount --bind "/dev/$device" "$mnt/dev/$device"
    fi
done
mount -t tmpfs -o mode=755 tmpfs "$mnt/run"
# /var/lock: libvirt keeps a lock there for every channel that is open.
mkdir "$mnt/run/lock"
mount -t tmpfs tmpfs "$mnt/tmp"
: >"$mnt/run/lab-init"
mount --bind "$init" "$mnt/run/lab-init"
for entry in "$@"; do
    source=${entry%%:*} target=${entry#*:}
    target=$mnt${target%:*}
    mkdir -p "$target"
    mount --bind "$source" "$target"
    mount -o "remount,bind,${entry##*:}" "$target"
done
# At a terminal virsh starts this agent for each connection, needed or not (virPolkitAgentCreate of
# libvirt), and it prints errors, since a host has no polkit. libvirtd needs no authentication here
# (auth_unix_rw = "none"), and virsh works without the agent if it can't be run.
[ ! -e "$mnt/usr/bin/pkttyagent" ] || chmod a-x "$mnt/usr/bin/pkttyagent"
cd "$mnt"
mkdir run/old
pivot_root . run/old
echo ready "$id"
exec chroot . /bin/sh -c '
    umount -l /run/old && rmdir /run/old
    exec /run/lab-init -s -- /bin/sleep infinity >/dev/null 2>&1'
