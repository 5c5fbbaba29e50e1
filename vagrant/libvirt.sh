# shellcheck shell=bash
# The libvirt that the lab uses: the one that runs on this machine, or else one
# of the lab's own inside namespaces. It is read by lab.sh, not run.
#
# What is made in a libvirt has these names, by which it is found and removed.

pool=coreplica-lab
pool_folder=/var/lib/libvirt/images/coreplica-lab
networks=(coreplica-lab coreplica-lab-management)
domain_prefix=coreplica-lab-

run=${state:?}/run
# entry leads a command to where the libvirt is; see enter_libvirt.
entry=()

virsh_in_lab() { tied "${entry[@]}" virsh --connect qemu:///system "$@"; }

# find_sandbox prints the first process of the lab's own namespaces, if it is
# there. It is known by its words and by being number 1 in its namespace, so no
# file with a number can lead to a process of somebody else.
find_sandbox() {
	local process words
	for process in /proc/[0-9]*; do
		{ mapfile -d '' -t words <"$process/cmdline"; } 2>/dev/null || continue
		[ "${#words[@]}" -eq 3 ] || continue
		[[ ${words[1]} == */vagrant/sandbox.sh && ${words[2]} == "$run" ]] || continue
		if grep -q '^NSpid:.*[[:space:]]1$' "$process/status" 2>/dev/null; then
			echo "${process#/proc/}"
			return 0
		fi
	done
}

# enter_libvirt sets entry for a lab that is there.
enter_libvirt() {
	local sandbox
	entry=()
	[ "$(cat "$run/mode" 2>/dev/null)" = own ] || return 0
	sandbox=$(find_sandbox)
	[ -n "$sandbox" ] || die "the lab's own libvirt has ended: run make lab-down, then make lab-up"
	entry=(nsenter --target "$sandbox" --mount --net --ipc --pid -- setpriv --pdeathsig KILL --)
}

# choose_libvirt decides which libvirt a new lab uses, and says so.
choose_libvirt() {
	local mode=${COREPLICA_LAB_LIBVIRT:-auto}
	case "$mode" in
	own | system) ;;
	auto)
		mode=own
		# Emulated machines need qemu.sh, which the AppArmor rules of a
		# machine's libvirt would refuse.
		if [ "$(cat "$run/driver")" = kvm ] && tied timeout 10 virsh --connect qemu:///system uri >/dev/null 2>&1; then mode=system; fi
		;;
	*) die "COREPLICA_LAB_LIBVIRT=$mode is none of auto, own, system: correct it or unset it" ;;
	esac
	echo "$mode" >"$run/mode.new"
	if [ "$mode" = own ]; then
		say "the lab starts a libvirt of its own in namespaces"
		start_sandbox
	else
		say "the libvirt of this machine is used"
		[ "$(cat "$run/driver")" = kvm ] ||
			say "emulated machines of this libvirt use a thread for each CPU and may hang when probes are attached: COREPLICA_LAB_LIBVIRT=own has a cure"
		use_system
	fi
}

start_sandbox() {
	local dir
	for dir in /etc/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt; do
		[ -d "$dir" ] || die "there is no $dir: run scripts/setup lab, or apt-get install libvirt-daemon-system"
	done
	[ -e /dev/net/tun ] || die "there is no /dev/net/tun, which networks of machines need: modprobe tun"
	need_command libvirtd libvirt-daemon
	need_command dnsmasq dnsmasq-base
	need_command iptables iptables
	mkdir -p "$run"/libvirt/{etc,lib,log,cache}
	cp "${vagrant:?}"/libvirt/*.conf "$run/libvirt/etc/"
	mv "$run/mode.new" "$run/mode"
	# Of the descriptors, the lock must not go along: it is this command's.
	setsid unshare --mount --net --ipc --pid --fork --kill-child --mount-proc \
		bash "$vagrant/sandbox.sh" "$run" </dev/null >"$run/libvirtd.log" 2>&1 9>&- &
	local deadline=$((SECONDS + 30))
	until [ -n "$(find_sandbox)" ] && enter_libvirt && virsh_in_lab uri >/dev/null 2>&1; do
		[ "$SECONDS" -lt "$deadline" ] || {
			tail -n 5 "$run/libvirtd.log" >&2
			die "libvirtd did not start within 30 s: see the lines above"
		}
		sleep 0.2
	done
}

# stop_sandbox ends the first process; the kernel ends the rest.
stop_sandbox() {
	local sandbox deadline=$((SECONDS + 20))
	sandbox=$(find_sandbox)
	[ -n "$sandbox" ] || return 0
	kill -KILL "$sandbox" 2>/dev/null || true
	while [ -n "$(find_sandbox)" ]; do
		[ "$SECONDS" -lt "$deadline" ] || die "process $sandbox does not end: see dmesg"
		sleep 0.1
	done
}

use_system() {
	if virsh_in_lab pool-info "$pool" >/dev/null 2>&1; then
		die "libvirt has a pool $pool: another lab uses it, so run make lab-down with the COREPLICA_LAB_STATE of that one"
	fi
	mv "$run/mode.new" "$run/mode"
}

# clear_system removes from the machine's libvirt what has the lab's names.
clear_system() {
	local name
	for name in $(virsh_in_lab list --all --name | grep "^$domain_prefix" || true); do
		virsh_in_lab destroy "$name" || true
		virsh_in_lab undefine "$name" || true
	done
	for name in "${networks[@]}"; do
		virsh_in_lab net-destroy "$name" || true
		virsh_in_lab net-undefine "$name" || true
	done
	virsh_in_lab pool-refresh "$pool" || true
	for name in $(virsh_in_lab vol-list "$pool" | awk 'NR > 2 && NF { print $1 }' || true); do
		virsh_in_lab vol-delete --pool "$pool" "$name" || true
	done
	virsh_in_lab pool-destroy "$pool" || true
	virsh_in_lab pool-delete "$pool" || true
	virsh_in_lab pool-undefine "$pool" || true
}

# make_pool makes the folder of disks and puts the kernel into it: there a
# libvirt that does not run as root can read it.
make_pool() {
	local file
	virsh_in_lab pool-define-as "$pool" dir --target "$pool_folder" >/dev/null
	virsh_in_lab pool-build "$pool" >/dev/null
	virsh_in_lab pool-start "$pool" >/dev/null
	for file in vmlinuz initrd.img; do
		virsh_in_lab vol-create-as "$pool" "$file" "$(stat -c %s "$state/box/$file")" --format raw >/dev/null
		virsh_in_lab vol-upload --pool "$pool" "$file" "$state/box/$file" >/dev/null
	done
}

# choose_driver finds out whether KVM boots the box's kernel. That a device
# /dev/kvm is there says little: some hypervisors offer one on which only kernels
# made for it run.
choose_driver() {
	local accel=${COREPLICA_LAB_ACCEL:-auto}
	case "$accel" in
	auto) if kvm_boots; then accel=kvm; else accel=tcg; fi ;;
	kvm | tcg) ;;
	*) die "COREPLICA_LAB_ACCEL=$accel is none of auto, kvm, tcg: correct it or unset it" ;;
	esac
	if [ "$accel" = kvm ]; then
		say "machines run on KVM"
		echo kvm >"$run/driver"
	else
		say "machines are emulated: there is no KVM that boots the kernel, or it is not wanted"
		echo qemu >"$run/driver"
	fi
}

kvm_boots() {
	[ -w /dev/kvm ] || return 1
	# The kernel finds no first program and reboots, which ends qemu.
	tied timeout -k 1 20 qemu-system-x86_64 -enable-kvm -cpu host -m 256 -nic none -display none -no-reboot \
		-serial "file:$run/kvm.log" -kernel "$state/box/vmlinuz" -append "console=ttyS0 panic=-1" >/dev/null 2>&1 || true
	grep -qs 'Linux version' "$run/kvm.log"
}
