// Package agent runs commands in a lab's guest, from outside.
//
// A guest has a virtio port to its host, which is a stream of bytes: no network
// that a test may cut, no address, no root. hashicorp/yamux makes many streams
// of it, and each is an SSH connection (RFC 4254), which has all that running a
// command needs: arguments, standard input, output and error apart, exit codes
// and signals. Nothing is encrypted for secrecy's sake: the port leads to the
// process that started the guest, and nobody else can open it.
package agent
