#!/usr/bin/env bash
# The first process of the namespaces that the lab's own libvirt lives in:
#
#   unshare --mount --net --ipc --pid --fork --mount-proc bash vagrant/sandbox.sh RUN-FOLDER
#
# Processes, mounts and network interfaces of the lab exist in here only. When
# this process ends, by whatever means, the kernel ends all of them, and nothing
# of it was ever visible to another libvirt on the machine.
set -euo pipefail

PATH="$PATH:/usr/sbin:/sbin"
run=$1

# Sockets and pid files. It also hides the host's dbus, whose systemd would
# otherwise be asked to look after the machines.
mount -t tmpfs -o mode=0755 coreplica-lab /run
mkdir -p /run/libvirt /run/lock
# The interfaces under /sys/class/net are those of the namespace that mounted it.
mount -t sysfs sysfs /sys
# libvirt's folders are fixed when it is built, so ours go over the host's.
for pair in lib:/var/lib/libvirt etc:/etc/libvirt log:/var/log/libvirt cache:/var/cache/libvirt; do
	mount --bind "$run/libvirt/${pair%%:*}" "${pair#*:}"
done
ip link set lo up

# Not exec: the first process must also collect what others leave.
libvirtd -f /etc/libvirt/libvirtd.conf &
wait $!
