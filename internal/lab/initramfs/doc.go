// Package initramfs fills the first root file system of a guest: programs of
// this machine with the shared libraries that they need, files and folders.
//
// Libraries are found the way that ld.so(8) does, by the sections of the ELF
// file and the folders of ld.so.conf, without running the program or ldd(1).
// What a program opens by itself (dlopen, data files) is not found; name it.
package initramfs
