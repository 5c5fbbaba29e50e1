package ring

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/coreplica/coreplica/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func newRing[T any](tb testing.TB, capacity int) *Ring[T] {
	tb.Helper()
	r, err := New[T](capacity)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// The ring against the obvious queue: a slice. The sequence of calls is what
// one producer and one consumer can do without waiting.
func TestRingMatchesSlice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, err := New[int](rapid.IntRange(1, 20).Draw(t, "capacity"))
		if err != nil {
			t.Fatal(err)
		}
		var queue []int
		next, closed := 0, false
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"push", "push", "pop", "pop", "close"}).Draw(t, "step") {
			case "push":
				batch := make([]int, rapid.IntRange(0, 25).Draw(t, "batch"))
				for i := range batch {
					batch[i] = next + i
				}
				n, err := r.TryPush(batch)
				want := min(len(batch), r.Cap()-len(queue))
				if closed && len(batch) > 0 {
					want = 0
				}
				if n != want || errors.Is(err, ErrClosed) != (closed && len(batch) > 0) {
					t.Fatalf("TryPush(%d) = %d, %v; want %d", len(batch), n, err, want)
				}
				queue = append(queue, batch[:n]...)
				next += n
			case "pop":
				buffer := make([]int, rapid.IntRange(0, 25).Draw(t, "buffer"))
				n := r.Pop(buffer)
				want := queue[:min(len(buffer), len(queue))]
				if !slices.Equal(buffer[:n], want) {
					t.Fatalf("Pop = %v, want %v", buffer[:n], want)
				}
				queue = queue[n:]
			case "close":
				r.Close()
				closed = true
			}
			if r.Len() != len(queue) || r.Tail() != uint64(next) {
				t.Fatalf("Len %d, Tail %d; want %d, %d", r.Len(), r.Tail(), len(queue), next)
			}
			if len(queue) > 0 || closed {
				if more := r.Wait(); more != (len(queue) > 0) {
					t.Fatalf("Wait = %v with %d values, closed %v", more, len(queue), closed)
				}
			}
		}
	})
}

// Every value arrives once, each producer's in their order, however small the
// ring, and with the consumer going to sleep in between.
func TestManyProducers(t *testing.T) {
	const producers = 4
	each := 20_000
	if testing.Short() {
		each = 2_000
	}
	for _, capacity := range []int{1, 8, 1024} {
		r := newRing[[2]int](t, capacity)
		var wait sync.WaitGroup
		for p := range producers {
			wait.Go(func() {
				for i := 0; i < each; {
					batch := make([][2]int, min(1+i%7, each-i))
					for j := range batch {
						batch[j] = [2]int{p, i + j}
					}
					n, err := r.Push(t.Context(), batch...)
					if err != nil {
						t.Errorf("Push: %v", err)
						return
					}
					if i += n; i%1000 < 3 {
						time.Sleep(time.Microsecond)
					}
				}
			})
		}
		go func() {
			wait.Wait()
			r.Close()
		}()
		var next [producers]int
		buffer := make([][2]int, 100)
		for r.Wait() {
			for _, v := range buffer[:r.Pop(buffer)] {
				if v[1] != next[v[0]] {
					t.Fatalf("capacity %d: producer %d: got %d, want %d", capacity, v[0], v[1], next[v[0]])
				}
				next[v[0]]++
			}
		}
		for p, n := range next {
			if n != each {
				t.Errorf("capacity %d: producer %d: %d of %d arrived", capacity, p, n, each)
			}
		}
	}
}

// What was pushed without an error before or during Close arrives.
func TestCloseLosesNothing(t *testing.T) {
	for range 300 {
		r := newRing[int](t, 4)
		var wait sync.WaitGroup
		pushed := make([]int, 3)
		for p := range pushed {
			wait.Go(func() {
				for {
					n, err := r.Push(context.Background(), 1, 1, 1)
					pushed[p] += n
					if err != nil {
						if !errors.Is(err, ErrClosed) {
							t.Errorf("Push: %v", err)
						}
						return
					}
				}
			})
		}
		go func() {
			runtime.Gosched()
			r.Close()
			r.Close()
		}()
		popped := 0
		buffer := make([]int, 3)
		for r.Wait() {
			popped += r.Pop(buffer)
		}
		wait.Wait()
		if want := pushed[0] + pushed[1] + pushed[2]; popped != want {
			t.Fatalf("%d pushed, %d popped", want, popped)
		}
	}
}

func TestPushStopsWithContext(t *testing.T) {
	r := newRing[int](t, 2)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	n, err := r.Push(ctx, 1, 2, 3)
	if n != 2 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Push into a full ring = %d, %v", n, err)
	}
}

// A Wake that comes before the Wait is not lost.
func TestWakeIsKept(t *testing.T) {
	r := newRing[int](t, 2)
	r.Wake()
	if !r.Wait() {
		t.Error("the ring is not closed")
	}
	woken := make(chan bool)
	go func() { woken <- r.Wait() }()
	for r.asleep.Load() == 0 {
		runtime.Gosched()
	}
	r.Wake()
	if !<-woken {
		t.Error("the ring is not closed")
	}
}

// The ring keeps no value alive that was popped.
func TestPopForgets(t *testing.T) {
	r := newRing[*int](t, 2)
	if _, err := r.TryPush([]*int{new(int)}); err != nil {
		t.Fatal(err)
	}
	r.Pop(make([]*int, 2))
	for i := range r.cells {
		if r.cells[i].value != nil {
			t.Errorf("cell %d still holds its value", i)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, capacity := range []int{-1, 0, MaxCapacity + 1} {
		if _, err := New[int](capacity); err == nil {
			t.Errorf("New(%d): no error", capacity)
		}
	}
	if got := newRing[int](t, 5).Cap(); got != 8 {
		t.Errorf("capacity 5 becomes %d, want 8", got)
	}
}

// Pushing allocates nothing.
func TestPushDoesNotAllocate(t *testing.T) {
	r := newRing[int](t, 64)
	batch, buffer := make([]int, 16), make([]int, 64)
	if n := testing.AllocsPerRun(100, func() {
		_, _ = r.TryPush(batch)
		r.Pop(buffer)
	}); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
}

// One producer hands numbers to one consumer, by the ring in batches and by a
// channel one by one.
func BenchmarkHandOver(b *testing.B) {
	for _, batch := range []int{1, 16, 256} {
		b.Run("queue=ring/batch="+strconv.Itoa(batch), func(b *testing.B) {
			r := newRing[int](b, 1024)
			done := make(chan int)
			go func() {
				sum, buffer := 0, make([]int, 256)
				for r.Wait() {
					for _, v := range buffer[:r.Pop(buffer)] {
						sum += v
					}
				}
				done <- sum
			}()
			values := make([]int, batch)
			for i := range values {
				values[i] = 1
			}
			b.ReportAllocs()
			for left := b.N; left > 0; left -= min(left, batch) {
				if _, err := r.Push(context.Background(), values[:min(left, batch)]...); err != nil {
					b.Fatal(err)
				}
			}
			r.Close()
			if sum := <-done; sum < b.N {
				b.Fatalf("%d of %d arrived", sum, b.N)
			}
		})
	}
	b.Run("queue=channel/batch=1", func(b *testing.B) {
		values := make(chan int, 1024)
		done := make(chan int)
		go func() {
			sum := 0
			for v := range values {
				sum += v
			}
			done <- sum
		}()
		b.ReportAllocs()
		for range b.N {
			values <- 1
		}
		close(values)
		if sum := <-done; sum != b.N {
			b.Fatalf("%d of %d arrived", sum, b.N)
		}
	})
}
