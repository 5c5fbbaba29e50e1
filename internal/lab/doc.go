// Package lab boots guests: small virtual machines with the NUMA nodes, the
// kernel, the modules and the programs that a test names, for what the machine
// at hand does not have.
//
// [Run] boots one, runs one program in it and returns its exit code. The root
// file system is made for the run, from a copy of the running program (see the
// guest package, whose Main it must call), the named programs of this machine
// with their libraries, and the modules. Nothing is installed, nothing needs
// root, and what a run makes lies in the folder of a cleanup.Run: when the
// process dies, its guests die with it, and `coreplica clean` removes the rest.
//
// QEMU runs a guest with KVM where that boots the kernel within ten seconds,
// which is tried once and remembered, and with its own translator (TCG)
// elsewhere. A guest under TCG proves counts, placement and correctness. It
// proves nothing about speed: there is no cache, no remote memory and no
// hardware counter in it, and its clock runs while the host does other things.
package lab
