#!/bin/busybox sh
# Of a nested host: drivers, then its root, a read-only image with a layer of memory over it.
b=/bin/busybox
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
while read -r module options; do
    # Not every machine has the device of every driver; of a driver that is missed its user tells.
    $b insmod "/modules/$module.ko" $options 2>/dev/null
done </modules/order
$b mount -t squashfs -o ro /dev/vda /lower
$b mount -t tmpfs -o size=80% layer /layer
$b mkdir /layer/upper /layer/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work overlay /root
$b cp -a /host/. /root/
$b chmod 600 /root/etc/ssh/lab_host_key /root/root/.ssh/authorized_keys
$b chmod 700 /root/root /root/root/.ssh
for folder in dev proc sys; do
    $b mount --move "/$folder" "/root/$folder"
done
exec $b switch_root /root /usr/sbin/lab-init
