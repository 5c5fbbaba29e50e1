package proc

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"testing"

	"github.com/coreplica/coreplica/internal/testkit"
	"golang.org/x/sys/unix"
)

// The environment says what a process of these tests does.
const (
	openerEnv = "COREPLICA_TEST_OPENER"
	hogEnv    = "COREPLICA_TEST_HOG"
	roleEnv   = "COREPLICA_TEST_ROLE"
)

// Roles of workers. One without a role echoes.
const (
	roleCount   = "count"    // says when it is up, counts items and tells the count
	rolePrint   = "print"    // prints and ends
	roleNoDeath = "no death" // echoes, and takes its parent death signal back
	roleSpin    = "spin"     // counts in shared memory, on several threads
	roleLoopEnd = "loop end" // the same, and the thread ends that tells of its end
)

// What rolePrint prints.
const (
	printedOut  = "a line for people\n"
	printedErr  = "a line of trouble\n"
	printedLast = "a last line without an end"
)

// The signal is the main thread's, which runs this and nothing else for sure.
func init() {
	if os.Getenv(roleEnv) == roleNoDeath {
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0); err != nil {
			panic(err)
		}
	}
}

func TestMain(m *testing.M) {
	started, is, err := Child()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if is {
		os.Exit(work(started))
	}
	if os.Getenv(hogEnv) != "" {
		os.Exit(hog())
	}
	if os.Getenv(openerEnv) != "" {
		os.Exit(shortLivedOpener())
	}
	testkit.Main(m)
}

// Kinds of the echoing workers' frames.
const (
	kindQuestion = iota + 1 // worker to worker
	kindAnswer              // back
	kindAsk                 // opener to worker: ask the peer in the first byte
	kindAnswered            // worker to opener: {peer, life} and the items
	kindLinked              // worker to opener: {peer, life}
	kindUp                  // worker to opener: it runs
	kindItems               // opener to worker: to be counted
)

func work(s *Started) int {
	switch os.Getenv(roleEnv) {
	case roleCount:
		return countingWorker(s)
	case rolePrint:
		fmt.Print(printedOut)
		fmt.Fprint(os.Stderr, printedErr)
		fmt.Print(printedLast)
		return 0
	case roleSpin, roleLoopEnd:
		return spinningWorker(s)
	}
	return echoWorker(s)
}

// countingWorker tells over its opener's link that it is up, and how many items
// it has seen once it is asked.
func countingWorker(s *Started) int {
	m, err := s.Boot.Receive()
	if err != nil || m.Kind != KindOpener {
		return 3
	}
	link := NewLink(m.Files[0])
	defer link.Close()
	var b Batch
	if b.Reset(kindUp); link.Send(&b) != nil {
		return 3
	}
	seen := 0
	err = link.Receive(func(f Frame) error {
		if f.Kind == kindAsk {
			b.Reset(kindAnswer)
			b.Append([]byte(strconv.Itoa(seen)))
			return link.Send(&b)
		}
		for range f.Items() {
			seen++
		}
		return nil
	})
	if err != io.EOF {
		return 3
	}
	return 0
}

// echoWorker answers its peers until the opener dies.
func echoWorker(s *Started) int {
	fmt.Println("worker", s.Index, "runs")
	died, _, err := Watch(s.Opener)
	if err != nil || s.Boot.Send(Message{Kind: "up"}) != nil {
		return 3
	}
	go func() {
		var mu sync.Mutex
		peers := map[int]*Link{}
		var opener *Link
		for {
			m, err := s.Boot.Receive()
			if err != nil {
				return
			}
			link := NewLink(m.Files[0])
			if m.Kind == KindOpener {
				opener = link
				go link.Receive(func(f Frame) error {
					for item := range f.Items() {
						mu.Lock()
						peer := peers[int(item[0])]
						mu.Unlock()
						var b Batch
						b.Reset(kindQuestion)
						b.Append([]byte("one"))
						b.Append(nil)
						b.Append(item)
						peer.Send(&b)
					}
					return nil
				})
				continue
			}
			mu.Lock()
			peers[m.Peer] = link
			mu.Unlock()
			go link.Receive(func(f Frame) error { return echo(f, link, opener, m) })
			var b Batch
			b.Reset(kindLinked)
			b.Append([]byte{byte(m.Peer), byte(m.Life)})
			opener.Send(&b)
		}
	}()
	<-died
	return 0
}

func echo(f Frame, link, opener *Link, m Message) error {
	var b Batch
	to := link
	b.Reset(kindAnswer)
	if f.Kind == kindAnswer {
		to = opener
		b.Reset(kindAnswered)
		b.Append([]byte{byte(m.Peer), byte(m.Life)})
	}
	for item := range f.Items() {
		b.Append(item)
	}
	return to.Send(&b)
}

// shortLivedOpener spawns a worker, hands its pidfd to the test and waits to be
// killed.
func shortLivedOpener() int {
	file, err := newFile(bootFD, "test")
	if err != nil {
		return 3
	}
	test, err := newBoot(file)
	if err != nil {
		return 3
	}
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)
	w, err := Spawn(0, 1, SpawnOptions{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	if _, err := w.Boot.Receive(); err != nil {
		return 3
	}
	if test.Send(Message{Kind: "worker", Files: []*os.File{w.Pidfd()}}) != nil {
		return 3
	}
	<-interrupts
	if test.Send(Message{Kind: "interrupted"}) != nil {
		return 3
	}
	test.Receive()
	return 0
}
