package blockserver

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// cutImage writes half of the disk flushed and half not, cuts the power and
// returns what is left.
func cutImage(t *testing.T, o Options) []byte {
	t.Helper()
	s := newServer(t, o)
	c := open(t, s)
	c.fill(0, 64<<10, 1, 0)
	c.fill(1000, 1000, 2, 0)
	c.flush()
	c.fill(64<<10, 64<<10, 3, 0)
	c.fill(128<<10, 4096, 4, cmdFlagFUA)
	c.fill(0, 512, 5, 0)
	if _, err := s.PowerCut(); err != nil {
		t.Fatal(err)
	}
	c.hungUp()
	left := image(t, s)
	again := open(t, s)
	if got := again.do(cmdRead, 0, 0, len(left), nil); !bytes.Equal(got, left) {
		t.Error("a guest that starts again reads something else than the image holds")
	}
	return left
}

func TestPowerCut(t *testing.T) {
	lostSome, keptSome, tornSome := 0, 0, 0
	for seed := range uint64(20) {
		left := cutImage(t, Options{Seed: seed})
		flushed := bytes.Repeat([]byte{1}, 64<<10)
		copy(flushed[1000:], bytes.Repeat([]byte{2}, 1000))
		if !bytes.Equal(left[512:64<<10], flushed[512:]) {
			t.Errorf("seed %d: what was flushed is gone", seed)
		}
		if n := bytes.Count(left[:512], []byte{1}) + 2*bytes.Count(left[:512], []byte{5}); n != 512 && n != 1024 {
			t.Errorf("seed %d: a sector is torn", seed)
		}
		if bytes.Count(left[128<<10:132<<10], []byte{4}) != 4096 {
			t.Errorf("seed %d: what was written with forced unit access is gone", seed)
		}
		kept := bytes.Count(left[64<<10:128<<10], []byte{3})
		if lost := bytes.Count(left[64<<10:128<<10], []byte{0}); kept+lost != 64<<10 || kept%512 != 0 {
			t.Errorf("seed %d: %d bytes kept and %d lost", seed, kept, lost)
		}
		if kept < 64<<10 {
			lostSome++
		}
		if kept > 0 {
			keptSome++
		}
		if kept > 0 && kept < 64<<10 {
			tornSome++
		}
		if !bytes.Equal(left, cutImage(t, Options{Seed: seed})) {
			t.Errorf("seed %d does not leave the same twice", seed)
		}
		// The control: with KeepAll the same run loses nothing.
		all := cutImage(t, Options{Seed: seed, KeepAll: true})
		if bytes.Count(all[64<<10:128<<10], []byte{3}) != 64<<10 || bytes.Count(all[:512], []byte{5}) != 512 {
			t.Errorf("seed %d: KeepAll lost something", seed)
		}
	}
	if lostSome == 0 || keptSome == 0 || tornSome == 0 {
		t.Errorf("of 20 seeds %d lost, %d kept and %d tore something: want each", lostSome, keptSome, tornSome)
	}
}

// CAN_MULTI_CONN: a flush on one connection covers what was answered on
// another.
func TestAFlushCoversAllConnections(t *testing.T) {
	for seed := range uint64(10) {
		s := newServer(t, Options{Seed: seed})
		a, b := open(t, s), open(t, s)
		a.fill(0, 64<<10, 1, 0)
		if got := b.do(cmdRead, 0, 0, 64<<10, nil); bytes.Count(got, []byte{1}) != 64<<10 {
			t.Error("one connection does not read what another wrote")
		}
		b.flush()
		if _, err := s.PowerCut(); err != nil {
			t.Fatal(err)
		}
		if bytes.Count(image(t, s)[:64<<10], []byte{1}) != 64<<10 {
			t.Errorf("seed %d: the flush did not cover the other connection", seed)
		}
	}
}

// Writers that are in the middle of it when the power goes: each knows what was
// flushed, and all of that is there. After the cut nothing more gets in.
func TestPowerCutUnderLoad(t *testing.T) {
	const writers, region = 4, 64 << 10
	s := newServer(t, Options{Seed: 3, CacheBytes: 200 << 10})
	var running sync.WaitGroup
	var mu sync.Mutex
	flushed := make([]int, writers)
	for w := range writers {
		c := open(t, s)
		running.Go(func() {
			for round := 1; round < 200; round++ {
				data := bytes.Repeat([]byte{byte(round)}, region)
				errno, _, err := c.try(request{command: cmdWrite, offset: uint64(w * region), length: region}, data)
				if err != nil {
					return
				}
				if errno == errnoNone {
					errno, _, err = c.try(request{command: cmdFlush}, nil)
				}
				if err != nil {
					return
				}
				if errno != errnoNone {
					t.Errorf("writer %d: error %d", w, errno)
					return
				}
				mu.Lock()
				flushed[w] = round
				mu.Unlock()
			}
			t.Errorf("writer %d was not stopped by the cut", w)
		})
	}
	for {
		mu.Lock()
		least := min(flushed[0], flushed[1], flushed[2], flushed[3])
		mu.Unlock()
		if least >= 5 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if _, err := s.PowerCut(); err != nil {
		t.Fatal(err)
	}
	left := image(t, s)
	running.Wait()
	if !bytes.Equal(left, image(t, s)) {
		t.Error("something was written after the cut")
	}
	for w, round := range flushed {
		part := left[w*region:][:region]
		for i := 0; i < region; i += 512 {
			// The next round was perhaps under way.
			if got := int(part[i]); got != round && got != round+1 || bytes.Count(part[i:i+512], part[i:i+1]) != 512 {
				t.Fatalf("writer %d flushed round %d, and sector %d holds %d", w, round, i/512, got)
			}
		}
	}
}

func TestTheCacheIsBounded(t *testing.T) {
	const limit, size = 1 << 20, 16 << 20
	s := newServer(t, Options{SizeBytes: size, CacheBytes: limit})
	c := open(t, s)
	for i := 0; i < size; i += 1 << 20 {
		c.fill(i, 1<<20, byte(i>>20)+1, 0)
		if stats := s.Stats(); stats.CacheBytes > limit || stats.VolatileSectors == 0 {
			t.Fatalf("%+v: want at most %d bytes, and some", stats, limit)
		}
	}
	for range 100 {
		c.do(cmdWriteZeroes, cmdFlagNoHole, 512, 1<<20, nil) // Versions of the same sectors count, too.
		if stats := s.Stats(); stats.CacheBytes > limit {
			t.Fatalf("%+v: want at most %d bytes", stats, limit)
		}
	}
	for i := 2 << 20; i < size; i += 1 << 20 {
		if got := c.do(cmdRead, 0, i, 1<<20, nil); bytes.Count(got, []byte{byte(i>>20) + 1}) != 1<<20 {
			t.Fatalf("megabyte %d does not read back", i>>20)
		}
	}
}

func TestCloseStoresEverything(t *testing.T) {
	s := newServer(t, Options{})
	c := open(t, s)
	c.fill(100, 5000, 6, 0)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	c.hungUp()
	if got := image(t, s)[100:5100]; bytes.Count(got, []byte{6}) != 5000 {
		t.Error("an orderly end lost a write")
	}
	if _, err := s.PowerCut(); !errors.Is(err, ErrClosed) {
		t.Errorf("power cut after Close: %v", err)
	}
	if err := s.Flush(); !errors.Is(err, ErrClosed) {
		t.Errorf("flush after Close: %v", err)
	}
}

func TestFlushOfTheHost(t *testing.T) {
	s := newServer(t, Options{})
	open(t, s).fill(0, 4096, 6, 0)
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	if stats := s.Stats(); stats.VolatileSectors != 0 || stats.CacheBytes != 0 || stats.Writes != 1 {
		t.Errorf("%+v", stats)
	}
	if bytes.Count(image(t, s)[:4096], []byte{6}) != 4096 {
		t.Error("the write is not in the image")
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	s := newServer(t, Options{})
	var all []*client
	for range maxConnections {
		all = append(all, open(t, s))
	}
	extra, err := net.Dial("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = extra.Close() }()
	(&client{t: t, conn: extra}).hungUp()
	all[0].write(requestBytesOf(request{command: cmdDisc}))
	all[0].hungUp()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		n := len(s.connections)
		s.mu.Unlock()
		if n < maxConnections {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a client that left still counts")
		}
	}
	open(t, s)
}

func TestErrorsOfNewSayTheFix(t *testing.T) {
	s := newServer(t, Options{})
	dir := filepath.Dir(s.socket)
	file := func(name string, size int) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tests := []struct {
		image, socket string
		o             Options
		says          string
	}{
		{s.disk.file.Name(), dir + "/b", Options{}, ErrInUse.Error()},
		{file("x1", 512), s.socket, Options{}, ErrInUse.Error()},
		{file("x2", 512), dir + "/" + strings.Repeat("s", 107), Options{}, ErrPathTooLong.Error()},
		{file("x3", 0), dir + "/b", Options{}, "positive multiple of 512"},
		{file("x4", 0), dir + "/b", Options{SizeBytes: 1000}, "positive multiple of 512"},
		{file("x5", 1000), dir + "/b", Options{}, "positive multiple of 512"},
		{file("x6", 1024), dir + "/b", Options{SizeBytes: 512}, "ask for that size"},
		{file("x7", 1024), dir + "/b", Options{SectorBytes: 1024}, "take 512 or 4096"},
		{file("x8", 1024), dir + "/b", Options{CacheBytes: 5}, "take"},
		{file("x9", 1024), dir + "/b", Options{Export: strings.Repeat("e", 300)}, "more than 255"},
		{dir, dir + "/b", Options{}, "directory"},
		{dir + "/none/x", dir + "/b", Options{SizeBytes: 512}, "no such file"},
		{"/dev/null", dir + "/b", Options{}, "regular file"},
	}
	for i, tt := range tests {
		broken, err := New(tt.image, tt.socket, tt.o)
		if err == nil {
			t.Errorf("case %d was accepted", i)
			_ = broken.Close()
		} else if !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("case %d: %v, want a word about %q", i, err, tt.says)
		}
	}
	open(t, s) // It was left alone.
}

func TestAStaleSocketIsNoObstacle(t *testing.T) {
	s := newServer(t, Options{})
	stale := s.socket + "2"
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := New(s.disk.file.Name()+"2", stale, Options{SizeBytes: 512})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}

func TestURIQuotes(t *testing.T) {
	s := &Server{socket: "/tmp/a b&c+d%/é", options: Options{Export: "my disk"}}
	if got, want := s.URI(), "nbd+unix:///my%20disk?socket=/tmp/a%20b%26c%2Bd%25/%C3%A9"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func ExampleServer_PowerCut() {
	dir, err := os.MkdirTemp("", dirName)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	disk, err := New(filepath.Join(dir, "image"), filepath.Join(dir, "nbd"), Options{SizeBytes: 1 << 20, Seed: 7})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer disk.Close()
	// Here a guest would work with disk.URI(), and perhaps flush too seldom.
	cut, err := disk.PowerCut()
	fmt.Println("lost", cut.Lost, "of", cut.Volatile, "sectors,", err)
	// Output: lost 0 of 0 sectors, <nil>
}
