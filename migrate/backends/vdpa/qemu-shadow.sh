#!/bin/sh
# QEMU with shadow virtqueues on its vhost-vdpa network devices: libvirt has no switch for them.
# Each argument is looked at once and put back behind the others, so that their order stays.
n=$#
while [ "$n" -gt 0 ]; do
    arg=$1
    shift
    case $arg in
    '{"type":"vhost-vdpa",'*) arg="${arg%\}},\"x-svq\":true}" ;;
    esac
    set -- "$@" "$arg"
    n=$((n - 1))
done
exec /usr/bin/qemu-system-x86_64 "$@"
