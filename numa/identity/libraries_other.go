//go:build !amd64

package identity

import "runtime"

// Libraries asks the one library that knows this architecture.
func Libraries() []CPU { return []CPU{klauspost(runtime.GOARCH)} }

func intelOpinion() (Opinion, bool) { return Opinion{}, false }
