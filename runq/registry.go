package runq

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"sync"
)

// registry has the handlers of this program, by the number that stands for their
// name in payloads: the same in every process of the program.
var registry = struct {
	sync.RWMutex
	handlers map[uint32]registered
}{handlers: map[uint32]registered{}}

type registered struct {
	name   string
	handle Handler
}

// Register names a handler. Worker processes know what was registered before
// [Main], so it belongs into a package's init or in front of Main. It panics
// where the name is taken, or where its checksum is: choose another name.
func Register(name string, h Handler) {
	if name == "" || h == nil {
		panic("runq: register a handler: it needs a name and a function")
	}
	registry.Lock()
	defer registry.Unlock()
	number := nameNumber(name)
	if old, ok := registry.handlers[number]; ok {
		panic(fmt.Sprintf("runq: register handler %q: %q is registered already", name, old.name))
	}
	registry.handlers[number] = registered{name, h}
}

// RegisterJSON names a handler that takes and returns values in JSON.
func RegisterJSON[In, Out any](name string, h func(ctx context.Context, in In) (Out, error)) {
	Register(name, func(ctx context.Context, t *Task) ([]byte, error) {
		var in In
		if err := json.Unmarshal(t.Payload, &in); err != nil {
			return nil, fmt.Errorf("read payload of %s: %w", t.Name, err)
		}
		out, err := h(ctx, in)
		if err != nil {
			return nil, err
		}
		return json.Marshal(out)
	})
}

func lookup(number uint32) (registered, bool) {
	registry.RLock()
	defer registry.RUnlock()
	r, ok := registry.handlers[number]
	return r, ok
}

// nameNumber stands for a name: FNV-1a is short, and a collision is found when
// the second name is registered.
func nameNumber(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return h.Sum32()
}
