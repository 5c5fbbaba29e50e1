// Package mirror brings up the things that mirrorcost writes to, and always
// takes them down again: a file system or a set of files on one or several
// block devices, made on loop devices over tmpfs, loop devices with direct
// I/O, zram, or block devices that the caller names.
//
// The two legs of a comparison get equal paths: backing files are fully
// allocated, the target file is written once before anybody measures, and both
// are mounted with the same options. Where the kernel takes another path than
// the one asked for (btrfs turns O_DIRECT into buffered I/O for files with
// checksums since 6.14), the package says so in [Up.EffectiveMode].
//
// It makes no attempt to imitate a mirror: btrfs does the mirroring in the
// kernel. Only the kinds "files" and "uring" mirror in user space, and there it
// is the load that writes each copy.
package mirror
