package vagrant

import (
	"embed"
	"io/fs"
)

//go:embed provision
var provision embed.FS

// Provision returns the files that make a machine a node: provision.sh, which
// says how, and what it needs beside it.
func Provision() fs.FS {
	sub, err := fs.Sub(provision, "provision")
	if err != nil {
		panic(err) // The folder is embedded above.
	}
	return sub
}
