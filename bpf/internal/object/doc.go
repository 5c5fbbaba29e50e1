// Package object holds the compiled probes and their generated loaders. The
// sources are in bpf/src; `make generate` compiles them, and a test compiles
// them again and compares bytes.
package object
