# shellcheck shell=bash
# What must hold in a running lab, and after its end. It is read by lab.sh, not
# run.
#
# A node's shell expands what stands in single quotes, and lab.sh and libvirt.sh
# set vagrant, state, run and entry.
# shellcheck disable=SC2016,SC2154

# The smallest run that counts writes and bios on both legs. Emulated machines
# are slow and their clocks tell nothing, so the checks look at counts alone.
writes=256
short_run=(coreplica mirrorcost run --count "$writes" --quads 4 --device-size 288M --file-size 4M --probe-cost=false -o json)

missed=0

# check says whether a command holds.
check() {
	local what=$1
	shift
	if "$@" >"$run/check.log" 2>&1; then
		echo "ok    $what"
	else
		missed=$((missed + 1))
		echo "MISS  $what"
		tail -n 3 "$run/check.log" | sed 's/^/      /'
	fi
}

# on runs a command of the shell on a node, as root, within two minutes.
on() {
	local node=$1
	shift
	tied "${entry[@]}" timeout "${limit:-120}" ssh -F "$run/ssh-config" -o ConnectTimeout=20 "$node" -- "sudo sh -c $(printf '%q' "$*")"
}

check_nodes() {
	local node names
	names=$(awk '$1 == "Host" { print $2 }' "$run/ssh-config")
	[ -n "$names" ] || die "vagrant named no nodes: run make lab-down, then make lab-up"
	for node in $names; do
		check_node "$node"
		check_ways "$node" "$names"
		check_mirrorcost "$node"
	done
	[ "$missed" -eq 0 ] || die "$missed checks missed: see the lines with MISS"
}

check_node() {
	local node=$1
	check "$node has its name" on "$node" "test \"\$(hostname)\" = $node"
	check "$node has two memory cells of two CPUs" on "$node" \
		'cd /sys/devices/system/node && test "$(cat online)" = 0-1 && test "$(cat node0/cpulist node1/cpulist | xargs)" = "0-1 2-3"'
	check "$node has the modules" on "$node" 'cd /sys/module && ls -d loop brd zram raid1 btrfs'
	check "$node has the settings" on "$node" \
		'cd /proc/sys/kernel && test "$(cat perf_event_paranoid kptr_restrict numa_balancing | xargs)" = "1 1 0"'
	check "$node has the doctor's report of its boot" on "$node" \
		'systemctl is-active coreplica-doctor.service && grep -q "\"can_run\": true" /var/lib/coreplica/doctor.json'
	check "$node can measure, says coreplica doctor" on "$node" coreplica doctor
}

# check_ways checks that a node has its static address and reaches the others.
check_ways() {
	local node=$1 other
	check "$node has its static address" on "$node" \
		"ip -o -4 address show dev eth1 | grep -q \" \$(getent hosts $node | cut -d ' ' -f 1)/\""
	for other in $2; do
		[ "$other" != "$node" ] || continue
		check "$node reaches $other by address and by name" on "$node" \
			"ping -q -c 2 -W 5 \$(getent hosts $other | cut -d ' ' -f 1) && ping -q -c 2 -W 5 $other"
	done
}

check_mirrorcost() {
	local node=$1 began=$SECONDS
	limit=600 check "$node runs mirrorcost, which counts each write on each device" measure "$node"
	echo "      in $((SECONDS - began)) s"
	sed -n -E 's/^(baseline|mirror): /      &/p' "$run/check.log"
}

# measure checks that each write was counted on each device of its leg.
measure() {
	on "$1" "${short_run[*]}" >"$run/report.json" && awk -v writes="$writes" -f "$vagrant/counts.awk" "$run/report.json"
}

# remember_folders notes what the host's own folders of libvirt and vagrant hold.
remember_folders() { folders_before=$(list_folders); }

# Some of them are not there, which find calls a failure.
list_folders() {
	{ find /etc/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt /run/libvirt "${HOME:-/root}/.vagrant.d" 2>/dev/null || true; } | sort
}

# remember_namespaces notes by what the lab's own processes are known. A lab on
# the machine's libvirt has none.
remember_namespaces() {
	local sandbox
	sandbox=$(find_sandbox)
	[ -z "$sandbox" ] || network_namespace=$(readlink "/proc/$sandbox/ns/net")
}

# leftovers prints what is there of a lab: processes, mounts, folders, and what
# has its names in the machine's libvirt.
leftovers() {
	local process what
	for process in /proc/[0-9]*; do
		if [ -n "${network_namespace:-}" ] && [ "$(readlink "$process/ns/net" 2>/dev/null)" = "$network_namespace" ]; then
			echo "process ${process#/proc/}: $(tr '\0' ' ' <"$process/cmdline" 2>/dev/null | cut -c -60)"
		elif grep -qsF "$state/" "$process/cmdline"; then
			echo "process ${process#/proc/}: $(tr '\0' ' ' <"$process/cmdline" 2>/dev/null | cut -c -60)"
		fi
	done
	grep -F -e "$state" -e coreplica-lab /proc/self/mountinfo || true
	[ ! -e "$state" ] || echo "folder $state"
	diff <(printf '%s\n' "$folders_before") <(list_folders) | sed -n 's/^> /new: /p; s/^< /gone: /p' || true
	if timeout 10 virsh --connect qemu:///system uri >/dev/null 2>&1; then
		for what in list net-list pool-list; do
			virsh --connect qemu:///system "$what" --all --name | grep '^coreplica-lab' || true
		done
	fi
}
