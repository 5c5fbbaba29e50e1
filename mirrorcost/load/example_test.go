package load_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/coreplica/coreplica/mirrorcost/load"
)

// A program that writes each block to two files. The package's own TestMain
// calls [load.Hook]; a program does so first thing in main.
func Example() {
	if err := example(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output: 1000 writes of 4096 bytes, each to 2 files
}

func example(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "load-example")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	pair := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}
	for _, path := range pair {
		if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
			return err
		}
	}
	p, err := load.Start(ctx, map[string]load.Spec{"pair": {
		Targets:   [][]string{pair},
		FileBytes: 1 << 20,
		SizeBytes: 4096,
		Mode:      load.ModeBuffered,
		Pattern:   load.PatternRand,
	}}, load.StartOptions{})
	if err != nil {
		return err
	}
	result, err := p.Run(ctx, load.Block{Leg: "pair", Writes: 1000})
	if err == nil {
		err = p.Sync(ctx, "pair")
	}
	if closeErr := p.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	fmt.Printf("%d writes of %d bytes, each to %d files\n", result.Acknowledged, result.Bytes/result.Acknowledged, len(pair))
	return nil
}
