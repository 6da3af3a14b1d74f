#!/bin/sh
# The first process of a nested host, once its root is there: links by the MACs that the lab gave
# them, then libvirt and sshd. The kernel's command line has lab.name and lab.number.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/sshd /dev/pts /dev/shm
mount -t devpts -o ptmxmode=0666 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
# A guest that floods its console loses what comes of it, and the host no memory.
mount -t tmpfs -o size=64m,mode=755 tmpfs /var/log/libvirt
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ulimit -l unlimited
ulimit -n 65536
name=host number=1
for word in $(cat /proc/cmdline); do
    case $word in
    lab.name=*) name=${word#*=} ;;
    lab.number=*) number=${word#*=} ;;
    esac
done
hostname "$name"
# libvirt and what it starts listen where the other hosts send guests; the controller has a way there
# by the management network. ssh is for the controller alone.
echo "listen_addr = \"10.78.0.$number\"" >>/etc/libvirt/libvirtd.conf
echo "migration_address = \"10.78.0.$number\"" >>/etc/libvirt/qemu.conf
echo "ListenAddress 10.79.0.$number" >>/etc/ssh/sshd_config
sh /usr/sbin/own-addresses mgmt up-mig
ip link set lo up
for path in /sys/class/net/*; do
    read -r mac <"$path/address"
    case $mac in
    02:6d:6c:01:*) ip link set "${path##*/}" name mgmt ;;
    02:6d:6c:02:*) ip link set "${path##*/}" name up-mig ;;
    02:6d:6c:03:*) ip link set "${path##*/}" name up-data ;;
    02:6d:6c:04:*) ip link set "${path##*/}" name up-ovs ;;
    02:6d:6c:05:*) ip link set "${path##*/}" name up-pf ;;
    *) [ "${path##*/}" = lo ] || ip link set "${path##*/}" name up-vdpa ;;
    esac
done
ip -batch - <<END
addr add 10.79.0.$number/24 dev mgmt
link set mgmt up
addr add 10.78.0.$number/24 dev up-mig
link set up-mig up
link add data type bridge mcast_snooping 0
link set data arp off up
link set up-data master data up
link set up-ovs arp off up
END
[ ! -e /sys/class/net/up-pf ] || ip link set up-pf arp off up
libvirtd --daemon --listen --timeout 0
/usr/sbin/sshd
echo "migrate-lab: init reached"
while :; do
    wait
    sleep 3600
done
