package runq

import (
	"context"
	"errors"
)

func newProcesses(context.Context, *Queue) (fleet, error) {
	return nil, errors.New("worker processes are not supported on this system")
}
