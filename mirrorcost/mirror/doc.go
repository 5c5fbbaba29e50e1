// Package mirror brings up the things that mirrorcost writes to, and always
// takes them down again: a file system or a set of files on one or several
// block devices, made on loop devices over tmpfs, loop devices with direct
// I/O, zram, or block devices that the caller names.
//
// The two legs of a comparison get equal paths: backing files are written in
// full, so that no page of them is first touched in a measurement; target files
// are written once before anybody measures; file systems are mounted noatime,
// nodiscard and commit=300, and mkfs puts nothing off. Data without checksums
// comes from the mount option nodatasum: chattr +C would end copy-on-write too.
// Devices keep the logical block size that the kernel gives them, 512 bytes for
// loop and 4096 for zram; btrfs works in blocks of 4096 on all of them, so
// direct writes that are no multiple of that take its buffered path.
//
// Where the kernel takes another path than the one asked for, the package finds
// out by writing and counting dirtied pages, and says so in [Up.EffectiveMode].
// btrfs turns O_DIRECT into buffered I/O for files with checksums since Linux
// 6.14, and for data with several copies since 7.0 and in stable kernels from
// 6.12 on (commit 7c2830f00c3e, "fallback to buffered IO if the data profile has
// duplication"): there a single device is written directly and its mirror is
// not. That is part of what such a mirror costs, and a reader must know it.
//
// It makes no attempt to imitate a mirror: btrfs does the mirroring in the
// kernel. Only the kinds "files" and "uring" mirror in user space, and there it
// is the load that writes each copy.
//
// Copy-on-write frees a block only when a transaction commits, and nothing
// commits but syncfs. So between two syncs a btrfs can take no more new data
// than its free space, [Up.HeadroomBytes]; past that it commits in the middle of
// a measurement. The default of 1 GiB a device leaves 600 to 900 MiB, several
// times what a saturating load of 4 KiB writes makes in a block of a second.
//
// The package does not help to compare substrates: loop and zram cost CPU that
// a disk does not, and a disk takes time that they do not.
package mirror
