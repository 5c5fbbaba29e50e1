package runq_test

import (
	"context"
	"fmt"
	"log"
	"strings"

	"github.com/coreplica/coreplica/runq"
)

// Handlers are known before main begins, for workers are processes of this very
// program: runq.Main, the first call of main, is where they live.
func init() {
	runq.Register("shout", func(_ context.Context, t *runq.Task) ([]byte, error) {
		return []byte(strings.ToUpper(string(t.Payload))), nil
	})
}

func Example() {
	runq.Main() // In main, the first call.
	ctx := context.Background()
	q, err := runq.Open(ctx, runq.Options{Workers: 2, AllowSharedDomain: true})
	if err != nil {
		log.Fatal(err)
	}
	defer q.Close(ctx)
	id, err := q.Submit(ctx, runq.Job{Name: "shout", Payload: []byte("still here")})
	if err != nil {
		log.Fatal(err)
	}
	// From here on the task survives the death of any one worker.
	result, err := q.Wait(ctx, id)
	fmt.Println(string(result.Payload), result.Err, err)
	// Output: STILL HERE <nil> <nil>
}
