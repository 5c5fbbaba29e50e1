#!/usr/bin/env bash
# Builds the lab's box from Debian's packages and nothing else:
#
#   vagrant/box.sh FOLDER
#
# FOLDER then holds coreplica.box for vagrant, the kernel and initrd that boot
# it, the key that opens its machines, and what it was made of. The folder is
# complete or not there. Where it is there and was made by this script as it is
# now, nothing is done.
#
# COREPLICA_LAB_MIRROR names another mirror than deb.debian.org.
# The program in --essential-hook and dpkg-query expand what stands in single
# quotes, not this script.
# shellcheck disable=SC2016
set -euo pipefail

# shellcheck source=vagrant/common.sh
. "$(dirname "$0")/common.sh"

release=bookworm
mirror=${COREPLICA_LAB_MIRROR:-http://deb.debian.org/debian}
# The kernel for virtual machines is a quarter of the size, and boots faster.
packages=(
	linux-image-cloud-amd64 initramfs-tools busybox
	systemd systemd-sysv dbus udev openssh-server sudo
	iproute2 iputils-ping procps kmod
	btrfs-progs mdadm e2fsprogs
)
# Timers and waits that a short-lived machine without internet has no use for.
masked=(
	apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer
	mdcheck_start.timer mdcheck_continue.timer mdmonitor-oneshot.timer
	systemd-networkd-wait-online.service getty@tty1.service
)
# Of the disk, in GiB: vagrant-libvirt wants a whole number.
disk_gib=2

# In a process and mount namespace of its own, nothing that mmdebstrap starts or
# mounts outlives this script, however it ends.
alone() {
	[ -z "${COREPLICA_BOX_ALONE:-}" ] || return 0
	COREPLICA_BOX_ALONE=1 exec unshare --mount --pid --fork --kill-child --mount-proc "$BASH" "$0" "$@"
}

preflight() {
	[ "$(id -u)" -eq 0 ] || die "needs root, to make device files and owners in the box"
	need_command mmdebstrap mmdebstrap
	need_command mke2fs e2fsprogs
	need_command qemu-img qemu-utils
	need_command ssh-keygen openssh-client
	[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] ||
		die "the keys of Debian's archive are missing: apt-get install debian-archive-keyring"
}

# recipe is the fingerprint of all that the box depends on here.
recipe() {
	{ cat "$0" && echo "$mirror"; } | sha256sum | cut -d ' ' -f 1
}

# attempt runs a step with its output in a log, and shows the end of the log if
# it fails. Not by "if": in a condition, set -e has no effect in all that is
# called.
attempt() {
	local what=$1 log=$work/log free status
	shift
	set +e
	(
		set -e
		"$@"
	) >"$log" 2>&1 </dev/null
	status=$?
	set -e
	[ "$status" -ne 0 ] || return 0
	tail -n 12 "$log" >&2 || true
	free=$(free_mib "$work")
	if [ "$free" -lt 64 ]; then
		die "$what failed, since the disk of $(dirname "$work") is full ($free MiB free): make room there, or set COREPLICA_LAB_STATE to a folder on a larger disk"
	fi
	die "$what failed: see the lines above; packages come from $mirror (COREPLICA_LAB_MIRROR changes that)"
}

# install_system makes the tree of files. The hook runs before the kernel is
# installed: an initrd with just what finds the disk is unpacked in a tenth of
# the time, which counts where the CPU is emulated.
install_system() {
	local IFS=,
	mmdebstrap --quiet --variant=minbase --include="${packages[*]}" --dpkgopt=force-unsafe-io \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
		--essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"' \
		--essential-hook='echo MODULES=list >"$1/etc/initramfs-tools/conf.d/coreplica"' \
		--essential-hook='printf "%s\n" virtio_pci virtio_blk ext4 >"$1/usr/share/initramfs-tools/modules.d/coreplica"' \
		"$release" "$work/root" "$mirror"
}

configure_system() {
	local root=$work/root
	echo "/dev/vda / ext4 noatime 0 1" >"$root/etc/fstab"
	echo coreplica-box >"$root/etc/hostname"
	echo "127.0.0.1 localhost" >"$root/etc/hosts"
	configure_login "$root"
	configure_network "$root"
	mkdir -p "$root/etc/systemd/journald.conf.d"
	printf '[Journal]\nStorage=volatile\n' >"$root/etc/systemd/journald.conf.d/coreplica.conf"
	chroot "$root" systemctl mask "${masked[@]}"
	chroot "$root" systemctl enable systemd-networkd.service ssh.service
	rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*.log
}

configure_login() {
	local root=$1
	chroot "$root" useradd --create-home --shell /bin/bash vagrant
	echo "vagrant ALL=(ALL) NOPASSWD:ALL" >"$root/etc/sudoers.d/vagrant"
	chmod 0440 "$root/etc/sudoers.d/vagrant"
	install -d -m 0700 "$root/home/vagrant/.ssh"
	install -m 0600 "$work/out/key.pub" "$root/home/vagrant/.ssh/authorized_keys"
	chroot "$root" chown -R vagrant:vagrant /home/vagrant/.ssh
	# No name server answers in the lab, so sshd must not wait for one.
	printf 'UseDNS no\nPasswordAuthentication no\n' >"$root/etc/ssh/sshd_config.d/coreplica.conf"
}

# configure_network lets the first interface, by which vagrant comes in, ask for
# its address. The name is exact and the number high: vagrant writes a file of
# number 50 for each further interface, with its static address, and of the files
# that match an interface networkd takes the first.
configure_network() {
	cat >"$1/etc/systemd/network/90-coreplica.network" <<-END
		[Match]
		Name=eth0

		[Network]
		DHCP=ipv4
		IPv6AcceptRA=no
		LinkLocalAddressing=no
	END
}

make_disk() {
	truncate -s "${disk_gib}G" "$work/root.img"
	mke2fs -q -t ext4 -m 0 -L coreplica -d "$work/root" "$work/root.img"
	# What is written once and read often may take its time now.
	qemu-img convert -c -m 4 -W -O qcow2 "$work/root.img" "$work/box.img"
}

pack() {
	local out=$work/out
	cp -L "$work/root/vmlinuz" "$out/vmlinuz"
	cp -L "$work/root/initrd.img" "$out/initrd.img"
	printf '{"provider": "libvirt", "format": "qcow2", "virtual_size": %d}\n' "$disk_gib" >"$work/metadata.json"
	tar -C "$work" -cf "$out/coreplica.box" metadata.json box.img
	# A description gives the box a version, by which vagrant tells it from others.
	printf '{"name": "coreplica/lab", "versions": [{"version": "1", "providers": [{"name": "libvirt", "url": "file://%s/coreplica.box"}]}]}\n' \
		"$target" >"$out/coreplica.json"
	{
		echo "Debian $(cat "$work/root/etc/debian_version"), $mirror"
		chroot "$work/root" dpkg-query -W -f '${Package} ${Version}\n'
	} >"$out/packages"
	recipe >"$out/recipe"
}

build() {
	local began=$SECONDS
	mkdir -p "$work/out" "$work/tmp"
	export TMPDIR="$work/tmp"
	# In PEM: the ssh library of Debian's vagrant reads it without further gems.
	attempt "making a key" ssh-keygen -q -t ecdsa -m PEM -N '' -C coreplica-lab -f "$work/out/key"
	say "installing Debian $release and its kernel"
	attempt "installing Debian" install_system
	attempt "configuring the box" configure_system
	say "making its disk"
	attempt "making the disk" make_disk
	attempt "packing the box" pack
	rm -rf "$target"
	mv "$work/out" "$target"
	rm -rf "$work"
	say "made in $((SECONDS - began)) s: $(du -m "$target/coreplica.box" | cut -f 1) MiB, Linux $(awk '$1 ~ /^linux-image-[0-9]/ { sub("linux-image-", "", $1); print $1 }' "$target/packages")"
}

main() {
	[ "$#" -eq 1 ] || {
		echo "usage: vagrant/box.sh FOLDER" >&2
		exit 2
	}
	target=$1
	work=$target.partial
	if [ -e "$target/recipe" ] && [ "$(cat "$target/recipe")" = "$(recipe)" ]; then
		return 0
	fi
	preflight
	mkdir -p "$(dirname "$target")"
	need_disk "$(dirname "$target")" 2048
	alone "$@"
	rm -rf "$work"
	trap 'rm -rf "$work"' EXIT
	trap 'exit 130' INT TERM HUP
	build
}

main "$@"
