// Package kernel fetches the kernels that guests run: Debian's own packages, by
// the pattern of their names, into the user's cache folder. Nothing is installed
// and the machine's own package sources are neither read nor changed: apt works
// on a private set of lists, see apt.conf(5) and APT_CONFIG.
//
// The newest package that fits is taken each time the lists are renewed, since
// Debian removes old ones; what was taken is part of each result, as
// [Kernel.Version].
//
// [Kernel.Modules] puts modules into the order in which they can be loaded, by
// what depmod(8) wrote.
//
// It does not help without Debian's apt-get: then give [Open] a folder with a
// kernel of your own.
package kernel
