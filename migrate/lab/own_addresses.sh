#!/bin/sh
# Arguments: LINK ... Of the network namespace, or the host, that this runs in, before its links are
# up: packets for its own addresses are taken from lo and from the LINKs alone, and on no other link
# has it an address or says anything. So what else it is joined to, guests' taps above all, reaches
# nothing of it. (Linux alone takes them on every link: the weak host model of RFC 1122, 3.3.4.2.)
set -eu
for which in all default; do
    [ ! -e /proc/sys/net/ipv6 ] || echo 1 >/proc/sys/net/ipv6/conf/$which/disable_ipv6
    cd /proc/sys/net/ipv4/conf/$which
    echo 0 >forwarding # the first: it sets others anew
    echo 0 >accept_redirects
    echo 0 >accept_source_route
    echo 1 >arp_ignore   # an ARP reply for an address of the very link that was asked
    echo 2 >arp_announce # and no other link's address is named on it
    echo 1 >rp_filter    # a source is believed where the way back to it is
done
# What comes in by a link without such a rule finds no local address (ip-rule(8)).
number=1
for link in lo "$@"; do
    ip rule add pref $number iif "$link" lookup local
    number=$((number + 1))
done
ip rule del pref 0 lookup local
