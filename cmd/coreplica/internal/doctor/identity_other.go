//go:build !amd64

package doctor

import "runtime"

// identities asks the one library that knows this architecture.
func identities() []Identity { return []Identity{klauspost(runtime.GOARCH)} }
