package runq_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/coreplica/coreplica/runq"
)

func init() {
	runq.Register("nothing", func(context.Context, *runq.Task) ([]byte, error) { return nil, nil })
}

// BenchmarkTask takes tasks with 64-byte payloads through the queue, in batches
// of 256.
func BenchmarkTask(b *testing.B) {
	const batch = 256
	for _, threads := range []bool{true, false} {
		for _, k := range []int{1, 2} {
			for _, detached := range []bool{false, true} {
				b.Run(fmt.Sprintf("threads=%v/k=%d/detached=%v", threads, k, detached), func(b *testing.B) {
					ctx := context.Background()
					q, err := runq.Open(ctx, runq.Options{Threads: threads, Workers: 2, K: k, AllowSharedDomain: true})
					if err != nil {
						b.Fatal(err)
					}
					defer q.Close(ctx)
					jobs := make([]runq.Job, batch)
					for i := range jobs {
						jobs[i] = runq.Job{Name: "nothing", Payload: make([]byte, 64), Detached: detached}
					}
					b.ReportAllocs()
					b.ResetTimer()
					var flying [][]runq.ID
					land := func() {
						for _, id := range flying[0] {
							if _, err := q.Wait(ctx, id); err != nil && !detached {
								b.Fatal(err)
							}
							if detached {
								break
							}
						}
						flying = flying[1:]
					}
					for n := 0; n < b.N; n += batch {
						ids, err := q.SubmitBatch(ctx, jobs[:min(batch, b.N-n)])
						if err != nil {
							b.Fatal(err)
						}
						if flying = append(flying, ids); len(flying) > 4 {
							land()
						}
					}
					for len(flying) > 0 {
						land()
					}
					for detached && q.Stats().Pending > 0 {
					}
				})
			}
		}
	}
}
