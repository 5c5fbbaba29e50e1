// Package vagrant tests the lab that this folder holds: a multi-machine
// Vagrantfile for libvirt, the script that builds its box from Debian's packages,
// the script that makes a machine a node, and the one that takes all of it up and
// down. See docs/lab-vagrant.md.
//
// The tests look at what can be looked at without a machine: whether vagrant
// takes the Vagrantfile, whether the scripts are sound, what they say when
// something is missing, and that what is not theirs stays. They do not help
// against a box that does not boot: `make trial-lab` starts real machines and
// takes minutes.
package vagrant
