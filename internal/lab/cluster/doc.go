// Package cluster runs a lab of several nodes: guests that a switch connects,
// each with a disk whose power can be cut.
//
// A [Cluster] owns them all and lives in one process, which serves a socket: that
// is how commands reach it (see [Client]). Its guests die with it, and what it
// leaves lies in the folder of a cleanup.Run.
//
// The network is a vswitch.Switch, so a seed decides which frames a rule drops,
// and the disks are served by blockserver, so a seed decides which writes a loss
// of power takes. To kill QEMU alone would lose nothing, since the host's page
// cache keeps what the guest has written.
package cluster
