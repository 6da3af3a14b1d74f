#!/bin/sh
# Runs on a host that is prepared: `sh -c TEXT sh ROOT VERB [ARGUMENT ...]`. ROOT is empty, or a
# folder that stands for /. All that changes something holds one lock, so a program whose controller
# died has ended before the next controller's begins.
set -eu
root=$1 verb=$2
shift 2
book=$root/run/migrate-lab/prepared
pages=$root/sys/kernel/mm/hugepages/hugepages-2048kB

fail() {
    echo "$*" >&2
    exit 1
}
journals() {
    for one in "$book"/*.json; do
        [ ! -e "$one" ] || cat "$one"
    done
}
conf=/proc/sys/net
# Who has locked a file: process and command of each, by proc_locks(5).
holders() {
    inode=$(stat -c %i "$1")
    sed -n "s/^[0-9]*: FLOCK .* \([0-9]*\) [^ ]*:$inode .*/\1/p" /proc/locks | while read -r pid; do
        echo "process $pid ($(tr '\0' ' ' <"/proc/$pid/cmdline" | head -c 120))"
    done
}
absent() { [ ! -e "$root/sys/module/$(echo "$1" | tr - _)" ]; }
# Another controller may have written since the caller read.
unchanged() {
    now=$(journals | sha256sum)
    [ "${now%% *}" = "$1" ] || exit 75
}

case $verb in
read) # every journal, a line each
    journals
    exit
    ;;
pages) # how many there are, and how many of them are used or promised
    [ -e "$pages" ] || fail "the kernel has no huge pages of 2 MiB"
    read -r all <"$pages/nr_hugepages"
    read -r free <"$pages/free_hugepages"
    read -r promised <"$pages/resv_hugepages"
    echo "$all $((all - free + promised))"
    exit
    ;;
ipv6) # LINK: whether it has IPv6: 1 or 0
    echo $((1 - $(cat "$conf/ipv6/conf/$1/disable_ipv6" 2>/dev/null || echo 1)))
    exit
    ;;
missing) # MODULE: what loading it loads, in order, of all that is not there
    absent "$1" || exit 0
    plan=$(modprobe --show-depends "$1")
    while read -r how path _; do
        name=${path##*/}
        name=$(echo "${name%%.ko*}" | tr - _)
        if [ "$how" = insmod ] && absent "$name"; then echo "$name"; fi
    done <<END
$plan
END
    exit
    ;;
esac

umask 077
for folder in "${book%/*}" "$book"; do
    mkdir -p "$folder"
    [ ! -L "$folder" ] && [ -O "$folder" ] || fail "$folder is not ours: look at who made it, and remove it"
    chmod 700 "$folder"
done
exec 9>>"$book/lock"
chmod 600 "$book/lock"
flock -w 20 9 || fail "another controller holds $book/lock: $(holders "$book/lock")"

case $verb in
keep) # LAB DIGEST: the journal on standard input, whole or not at all
    unchanged "$2"
    cat >"$book/.new"
    sync "$book/.new"
    mv "$book/.new" "$book/$1.json"
    sync "$book"
    ;;
drop) # LAB DIGEST
    unchanged "$2"
    rm -f "$book/$1.json"
    ;;
set-pages) # FROM TO
    all=$(cat "$pages/nr_hugepages")
    [ "$all" = "$1" ] || fail "nr_hugepages is $all, it was $1 a moment ago"
    echo "$2" >"$pages/nr_hugepages"
    all=$(cat "$pages/nr_hugepages")
    if [ "$all" -lt "$2" ]; then
        echo "$1" >"$pages/nr_hugepages"
        fail "asked for $2 huge pages, the kernel has memory for $all"
    fi
    ;;
set-ipv6) # LINK 0|1
    [ ! -e "$conf/ipv6/conf/$1" ] || echo $((1 - $2)) >"$conf/ipv6/conf/$1/disable_ipv6"
    ;;
close) # LINK without routes: the host takes nothing that comes in by it, whatever it is addressed to
    echo 1 >"$conf/ipv4/conf/$1/rp_filter"  # no way back leads there, so no source is believed
    echo 8 >"$conf/ipv4/conf/$1/arp_ignore" # no reply for any address
    ;;
unload) # MODULE ...
    left=
    for name; do
        absent "$name" || rmmod "$name" || left="$left $name"
    done
    [ -z "$left" ] || fail "still loaded:$left"
    ;;
*) fail "no such verb: $verb" ;;
esac
