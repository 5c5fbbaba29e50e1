package proc

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"testing"

	"github.com/coreplica/coreplica/internal/testkit"
)

const openerEnv = "COREPLICA_TEST_OPENER"

func TestMain(m *testing.M) {
	started, is, err := Child()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if is {
		os.Exit(echoWorker(started))
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
)

// echoWorker answers its peers until the opener dies.
func echoWorker(s *Started) int {
	fmt.Println("worker", s.Index, "runs")
	died, _, err := Watch(s.Opener)
	if err != nil {
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
