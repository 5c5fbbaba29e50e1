#!/usr/bin/env bash
# Stands for qemu in the lab's own libvirt, and lets the emulator use one thread
# for all CPUs of a machine. With a thread for each, a kernel that patches code
# while another CPU runs it, as it does when a tracepoint is attached, can fall
# into an endless loop of breakpoints (seen with QEMU 7.2 and Linux 6.1 in a lab
# of two nodes). libvirt has no setting for it.
set -euo pipefail

args=()
for arg in "$@"; do
	if [ "$arg" = tcg ]; then arg=tcg,thread=single; fi
	args+=("$arg")
done
exec /usr/bin/qemu-system-x86_64 "${args[@]}"
