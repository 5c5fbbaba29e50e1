#!/usr/bin/env bash
# The lab: several machines of two memory cells each, made by vagrant from a box
# that is made here.
#
#   vagrant/lab.sh up           make the box if need be, start and provision the nodes
#   vagrant/lab.sh test         check the nodes that are up
#   vagrant/lab.sh down         remove all that the lab made, also after a kill -9
#   vagrant/lab.sh trial        all of it from nothing, and prove that nothing is left
#   vagrant/lab.sh vagrant ...  vagrant itself, inside the lab: status, ssh node1
#
# The make targets lab-up, lab-test, lab-down and trial-lab call it. Environment:
#
#   COREPLICA_LAB_NODES       number of nodes: 3, and 2 in a trial
#   COREPLICA_LAB_MEMORY_MIB  memory of a node: 2048
#   COREPLICA_LAB_ACCEL       kvm, tcg, or auto (the default), which tries
#   COREPLICA_LAB_LIBVIRT     system (the one that runs here), own, or auto: system
#                             if there is one and it has KVM
#   COREPLICA_LAB_STATE       the lab's folder: ~/.cache/coreplica/vagrant
#   COREPLICA_LAB_MIRROR      where the box's packages come from
#   COREPLICA_LAB_KEEP_BOX    1 lets down keep the box for the next lab
set -euo pipefail

# shellcheck source=vagrant/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=vagrant/libvirt.sh
. "$vagrant/libvirt.sh"
# shellcheck source=vagrant/checks.sh
. "$vagrant/checks.sh"

# undo is what to remove when the command fails: nothing, run or all.
undo=""

on_exit() {
	local status=$? failed=$BASH_COMMAND
	trap - EXIT
	# The rest happens whatever comes, also if nobody reads what is said.
	trap '' INT TERM HUP PIPE
	set +e
	case "$status" in
	0 | 129 | 130 | 143) ;;
	*) [ -n "$told" ] || say "this failed, and should have said why: $failed" ;;
	esac
	if [ "$status" -ne 0 ] && [ -n "$undo" ]; then
		say "failed or interrupted: removing what was made"
		untie
		explain
		entry=()
		stop_lab
		if [ "$undo" = all ] || [ ! -e "$state/box/recipe" ]; then remove_state; fi
	fi
	exit "$status"
}

# explain shows what the machines said last, before it is gone.
explain() {
	local log
	for log in "$run/libvirtd.log" "$run/libvirt/lib/images/coreplica-lab"/console-*.log; do
		[ -s "$log" ] || continue
		say "the last lines of $(basename "$log"):"
		tail -n 5 "$log" >&2
	done
}

# make_state makes the lab's folder, and remembers which folders above it were
# not there.
make_state() {
	local top=$state
	if [ ! -d "$state" ]; then
		while [ ! -d "$(dirname "$top")" ]; do top=$(dirname "$top"); done
		(umask 077 && mkdir -p "$state")
		echo "$top" >"$state/made"
	fi
}

# remove_state removes what the lab made in its folder, and the folders that it
# made for it if they are empty.
remove_state() {
	local top dir=$state
	[ -d "$state" ] || return 0
	top=$(cat "$state/made" 2>/dev/null || true)
	remove_folders "$run"
	if [ "${COREPLICA_LAB_KEEP_BOX:-}" = 1 ] && [ "$undo" != all ]; then
		say "the box stays in $state/box"
		return 0
	fi
	remove_folders "$state/box" "$state/box.partial" "$state/made" "$state/lock"
	[ -n "$top" ] || return 0
	while rmdir "$dir" 2>/dev/null && [ "$dir" != "$top" ]; do dir=$(dirname "$dir"); done
}

# take_lock lets one command at a time work on the lab.
take_lock() {
	make_state
	exec 9>>"$state/lock"
	flock -n 9 || die "process $(cat "$state/lock") works on this lab: wait for it, or run make lab-down to stop it"
	echo $$ >"$state/lock"
}

# seize_lock stops the command that works on the lab, if there is one. It cleans
# up when it is told to end.
seize_lock() {
	local holder
	exec 9>>"$state/lock"
	if ! flock -n 9; then
		holder=$(cat "$state/lock")
		[ "$(readlink "/proc/$holder/fd/9")" = "$state/lock" ] ||
			die "something holds $state/lock, and process $holder does not: see lsof"
		say "stopping process $holder, which works on this lab"
		kill -TERM "$holder" 2>/dev/null || true
		flock -w 60 9 || {
			kill -KILL "$holder" 2>/dev/null || true
			flock -w 10 9 || die "process $holder does not end: see dmesg"
		}
	fi
	[ ! -d "$state" ] || echo $$ >"$state/lock"
}

preflight() {
	[ "$(uname -m)" = x86_64 ] || die "the nodes are x86-64 machines, and this one is $(uname -m)"
	need_command vagrant vagrant
	[ -e /usr/share/vagrant-plugins/plugins.d/vagrant-libvirt.json ] ||
		die "vagrant's plugin for libvirt is missing: run scripts/setup lab, or apt-get install vagrant-libvirt"
	need_command qemu-system-x86_64 qemu-system-x86
	need_command virsh libvirt-clients
	need_command qemu-img qemu-utils
	need_command ssh openssh-client
	need_command setpriv util-linux
	[ "$(id -u)" -eq 0 ] || die "needs root, for namespaces, the box and libvirt"
	[[ ${COREPLICA_LAB_NODES:-3} =~ ^([1-9]|1[0-6])$ ]] ||
		die "COREPLICA_LAB_NODES=$COREPLICA_LAB_NODES is no whole number from 1 to 16: correct it or unset it"
	need_disk "$state" "$need_mib"
	[ -x "$vagrant/../bin/coreplica" ] || die "there is no bin/coreplica to give to the nodes: run make build"
}

# lab_environment is what a command in the lab sees. Its home is the lab's, so
# that the user's ~/.vagrant.d is neither read nor written.
lab_environment() {
	environment=(
		env "HOME=$run/home" "TMPDIR=$run/tmp" "XDG_CACHE_HOME=$run/home/.cache"
		"VAGRANT_HOME=$run/vagrant" "VAGRANT_DOTFILE_PATH=$run/machines" "VAGRANT_CWD=$vagrant"
		VAGRANT_CHECKPOINT_DISABLE=1 VAGRANT_DEFAULT_PROVIDER=libvirt VAGRANT_NO_COLOR=1
		"COREPLICA_LAB_STATE=$state" "COREPLICA_LAB_DRIVER=$(cat "$run/driver")"
		"COREPLICA_LAB_KERNEL=$pool_folder/vmlinuz" "COREPLICA_LAB_INITRD=$pool_folder/initrd.img"
		"COREPLICA_LAB_NODES=$(cat "$run/nodes")"
	)
	if [ "$(cat "$run/mode")" = own ]; then environment+=("COREPLICA_LAB_EMULATOR=$vagrant/qemu.sh"); fi
}

vagrant_in_lab() {
	lab_environment
	tied "${entry[@]}" "${environment[@]}" vagrant "$@"
}

make_box() {
	# It has said why itself.
	tied "$vagrant/box.sh" "$state/box" || {
		told=1
		return 1
	}
}

# start_libvirt makes the lab's run folder and all that vagrant needs to begin.
start_libvirt() {
	mkdir -p "$run/home" "$run/tmp"
	echo "${COREPLICA_LAB_NODES:-3}" >"$run/nodes"
	choose_driver
	choose_libvirt
	make_pool
	vagrant_in_lab box add "$state/box/coreplica.json" >/dev/null ||
		die "vagrant does not take the box: run make lab-down, then make lab-up"
}

start_nodes() {
	vagrant_in_lab --no-tty up --provider=libvirt --provision >&2 || die "vagrant up failed: see the lines above"
	vagrant_in_lab ssh-config >"$run/ssh-config" || die "vagrant tells no way to the nodes: see vagrant/lab.sh vagrant status"
	touch "$run/up"
}

# stop_lab ends all that runs, whatever state it is in.
stop_lab() {
	case "$(cat "$run/mode" 2>/dev/null)" in
	own) stop_sandbox ;;
	system) clear_system >/dev/null 2>&1 ;;
	esac
	remove_folders "$run" "$state/box.partial"
}

# up_already reports whether a lab runs; what is left of one that does not is
# removed.
up_already() {
	[ -e "$run/up" ] || {
		stop_lab
		return 1
	}
	[ "$(cat "$run/mode")" = system ] || [ -n "$(find_sandbox)" ] || {
		stop_lab
		return 1
	}
}

command_up() {
	preflight
	take_lock
	if up_already; then
		say "the lab is up: starting what is not, and provisioning again"
		enter_libvirt
		start_nodes
		return 0
	fi
	undo=run
	step "make the box" make_box
	step "start libvirt" start_libvirt
	step "start and provision $(cat "$run/nodes") nodes" start_nodes
	undo=""
	say "up: make lab-test checks it, vagrant/lab.sh vagrant ssh node1 goes in, make lab-down removes it"
}

command_test() {
	[ -e "$run/up" ] || die "no lab is up: run make lab-up"
	enter_libvirt
	check_nodes
}

command_down() {
	if [ ! -d "$state" ]; then
		say "there is no lab"
		return 0
	fi
	seize_lock
	stop_lab
	remove_state
	say "the lab is gone"
}

# step runs a function and remembers how long it took.
steps=()
step() {
	local name=$1 began=$SECONDS
	shift
	say "$name"
	"$@"
	steps+=("$(printf '%5d s  %s' $((SECONDS - began)) "$name")")
}

destroy_nodes() {
	vagrant_in_lab --no-tty destroy --force >&2 || die "vagrant destroy failed: see the lines above"
}

remove_all() {
	stop_lab
	remove_state
}

command_trial() {
	local began=$SECONDS
	preflight
	[ ! -e "$state" ] || die "a trial begins from nothing and there is $state: run make lab-down first"
	export COREPLICA_LAB_NODES=${COREPLICA_LAB_NODES:-2}
	remember_folders
	undo=all
	take_lock
	step "make the box" make_box
	step "start libvirt" start_libvirt
	remember_namespaces
	step "start and provision $COREPLICA_LAB_NODES nodes" start_nodes
	step "check them" check_nodes
	# What finds nothing now would find nothing afterwards either.
	[ -n "$(leftovers)" ] || die "the search for what is left sees no lab while one runs"
	step "destroy them" destroy_nodes
	step "remove the rest" remove_all
	undo=""
	local left
	left=$(leftovers)
	printf '%s\n' "${steps[@]}"
	printf '%5d s  in all\n' $((SECONDS - began))
	[ -z "$left" ] || die "left behind: $left"
	echo "nothing is left"
}

command_vagrant() {
	[ -d "$run" ] || die "no lab is there: run make lab-up"
	enter_libvirt
	lab_environment
	exec "${entry[@]}" "${environment[@]}" vagrant "$@"
}

trap on_exit EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

case "${1:-}" in
up | test | down | trial) "command_$1" ;;
vagrant) command_vagrant "${@:2}" ;;
*)
	echo "usage: vagrant/lab.sh up|test|down|trial|vagrant ..." >&2
	exit 2
	;;
esac
