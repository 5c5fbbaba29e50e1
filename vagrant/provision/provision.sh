#!/bin/sh
# Makes a machine a node of the lab. The Vagrant nodes run all steps; a guest
# that has less runs the steps that it can, by name:
#
#   provision.sh [packages] [modules] [sysctl] [binary] [hosts] [units]
#
# Each step may run any number of times. What a step needs lies beside this
# script: the lists in modules and sysctl.conf, which other programs may read
# too, the unit, and the program itself as coreplica.
#
# COREPLICA_NODE is the node's name, COREPLICA_HOSTS the addresses and names of
# all nodes, as in "10.0.0.11 node1,10.0.0.12 node2". Without them the step
# hosts has nothing to do.
set -eu

PATH="$PATH:/usr/sbin:/sbin"
here=$(dirname "$0")

die() {
	echo "provision: $*" >&2
	exit 1
}

# The box has all packages, so that no node needs a mirror. Another Debian may
# lack some.
packages() {
	missing=""
	for pair in mkfs.btrfs:btrfs-progs mdadm:mdadm modprobe:kmod ip:iproute2 ping:iputils-ping sysctl:procps; do
		command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
	done
	[ -n "$missing" ] || return 0
	command -v apt-get >/dev/null || die "missing:$missing: install them by the names of Debian's packages"
	# shellcheck disable=SC2086 # The names are words.
	DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing </dev/null >/dev/null ||
		die "missing:$missing: add them to the list in vagrant/box.sh, or run apt-get update where a mirror is in reach"
}

# lines prints a list without comments and empty lines.
lines() {
	sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' "$1"
}

modules() {
	lines "$here/modules" | while read -r module; do
		modprobe "$module" || die "kernel $(uname -r) has no module $module"
	done
	if [ -d /etc/modules-load.d ]; then
		cp "$here/modules" /etc/modules-load.d/coreplica.conf
	fi
}

# sysctl's own program is not everywhere, and the files always are.
sysctl_step() {
	lines "$here/sysctl.conf" | while IFS='= ' read -r name value; do
		file=/proc/sys/$(echo "$name" | tr . /)
		[ -e "$file" ] || die "kernel $(uname -r) has no setting $name"
		echo "$value" >"$file"
	done
	if [ -d /etc/sysctl.d ]; then
		cp "$here/sysctl.conf" /etc/sysctl.d/90-coreplica.conf
	fi
}

binary() {
	if [ -e "$here/coreplica" ]; then
		# By a rename, since a running program cannot be written over.
		mkdir -p /usr/local/bin
		cp "$here/coreplica" /usr/local/bin/coreplica.new
		chmod 0755 /usr/local/bin/coreplica.new
		mv /usr/local/bin/coreplica.new /usr/local/bin/coreplica
	fi
	[ -x /usr/local/bin/coreplica ] || die "there is no program to install: run make build, then provision again"
	/usr/local/bin/coreplica version >/dev/null || die "/usr/local/bin/coreplica does not run on $(uname -m)"
}

hosts() {
	[ -n "${COREPLICA_NODE:-}" ] || return 0
	echo "$COREPLICA_NODE" >/etc/hostname
	echo "$COREPLICA_NODE" >/proc/sys/kernel/hostname
	# What stands between the marks is ours; the rest of the file stays.
	touch /etc/hosts
	{
		sed -e '/^# coreplica begin$/,/^# coreplica end$/d' -e '/^127\.0\.1\.1[[:space:]]/d' /etc/hosts
		echo "# coreplica begin"
		echo "${COREPLICA_HOSTS:-}" | tr ',' '\n' | sed '/^$/d'
		echo "# coreplica end"
	} >/etc/hosts.new
	mv /etc/hosts.new /etc/hosts
}

# The doctor's report of each boot lies in /var/lib/coreplica.
units() {
	mkdir -p /var/lib/coreplica
	cp "$here/coreplica-doctor.service" /etc/systemd/system/
	systemctl daemon-reload
	systemctl enable --quiet coreplica-doctor.service
	systemctl restart coreplica-doctor.service ||
		die "coreplica doctor found something missing: see /var/lib/coreplica/doctor.json"
}

[ "$(id -u)" -eq 0 ] || die "needs root"
[ "$#" -gt 0 ] || set -- packages modules sysctl binary hosts units
for step in "$@"; do
	case "$step" in
	packages | modules | binary | hosts | units) "$step" ;;
	sysctl) sysctl_step ;;
	*) die "unknown step $step: there are packages, modules, sysctl, binary, hosts, units" ;;
	esac
done
