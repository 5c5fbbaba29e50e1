# shellcheck shell=bash
# What the lab's scripts share. It is read by them, not run.

PATH="$PATH:/usr/sbin:/sbin"
export PATH

vagrant=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export vagrant

# All that the lab keeps lies in one folder.
state=$(realpath -m -- "${COREPLICA_LAB_STATE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/coreplica/vagrant}")
export state

# A lab of three nodes takes about 2 GiB of disk: the box with its parts, its
# copy for vagrant and for libvirt, and what the nodes write.
export need_mib=3072

program=$(basename "$0" .sh)

say() { printf '%s: %s\n' "$program" "$*" >&2; }

# told is set once the reason of a failure has been said; lab.sh reads it.
# shellcheck disable=SC2034
told=""

die() {
	# shellcheck disable=SC2034
	told=1
	say "$*"
	exit 1
}

# free_mib prints what is free on the file system of a folder that may not be
# there yet.
free_mib() {
	local dir=$1
	while [ ! -d "$dir" ]; do dir=$(dirname "$dir"); done
	df --output=avail -B 1M "$dir" | tail -n 1 | tr -d ' '
}

# need_disk ends with the fix where a folder's disk has less than so many MiB.
need_disk() {
	local free
	free=$(free_mib "$1")
	[ "$free" -ge "$2" ] ||
		die "$1 has $free MiB free and the lab needs $2 MiB: make room there, or set COREPLICA_LAB_STATE to a folder on a larger disk"
}

# need_command ends with the fix where a command is missing.
need_command() {
	command -v "$1" >/dev/null || die "there is no $1: run scripts/setup lab, or apt-get install $2"
}

# tied runs a command that dies with this script, also by kill -9.
#
# It waits for a child in the background, because bash runs a trap only between
# commands in the foreground: a Ctrl-C would wait for the end of a long command.
tied() {
	# The lock, if there is one, is this script's alone.
	setpriv --pdeathsig KILL -- "$@" </dev/null 9>&- &
	child=$!
	wait "$child"
}

# untie ends the command that tied runs, if one does.
untie() {
	[ -n "${child:-}" ] || return 0
	kill -KILL "$child" 2>/dev/null || true
	wait "$child" 2>/dev/null || true
	child=""
}

# remove_folders removes folders, also while what wrote to them is ending.
remove_folders() {
	local tries
	for tries in 1 2 3 4 5 6 7 8 9 10; do
		rm -rf -- "$@" 2>/dev/null && return 0
		sleep "0.$tries"
	done
	rm -rf -- "$@"
}
