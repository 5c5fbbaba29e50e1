// Package cpio writes the archives that Linux unpacks into its first root file
// system: "new ASCII" without checksums, as the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst describes them.
//
// It is no general archiver: there is no reader, and no file may be 4 GiB or
// larger, since the format has 32 bits for it.
package cpio
