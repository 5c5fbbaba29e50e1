package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/coreplica/coreplica/internal/lab/guest"
	"github.com/coreplica/coreplica/mirrorcost/load"
	"github.com/coreplica/coreplica/runq"
)

func main() {
	guest.Main() // The first process of a lab's guest is this program again,
	load.Hook()  // so is the load of a measurement,
	runq.Main()  // and so are the workers of a run queue.
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole program, but for the exit.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal asks for an orderly end, in which mirrors are taken
	// down. The second one finds the default again and ends at once; `coreplica
	// clean` is for what is left then.
	defer context.AfterFunc(ctx, stop)()

	root := newRoot(stdout, stderr)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintf(stderr, "coreplica: %s\n", oneLine(err))
	}
	return exitCode(err)
}
