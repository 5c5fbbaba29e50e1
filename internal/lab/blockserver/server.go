package blockserver

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/internal/lab/blockserver/writecache"
)

const (
	// maxConnections bounds the clients, and so the buffers: a guest has one, or
	// one for each of its queues.
	maxConnections = 16
	// handshakeTime is how long a client may take until it sends requests.
	handshakeTime = 10 * time.Second
	// maxPath is the longest path of a unix socket in bytes, with a NUL at its
	// end as QEMU wants it.
	maxPath = 107
	// defaultCacheBytes is what a disk has.
	defaultCacheBytes = 64 << 20
	// preferredBytes is a page: what a guest writes by itself.
	preferredBytes = 4096
)

// ErrPathTooLong is in the error for a socket's path of more than 107 bytes.
var ErrPathTooLong = errors.New("the path is too long for a unix socket: take a folder with a shorter one, e.g. below /tmp")

// ErrInUse is in the error for an image or a socket that another server has.
var ErrInUse = errors.New("another server has it: close that one, or take another path")

// ErrClosed is returned by what is called after Close.
var ErrClosed = errors.New("the block server is closed")

// Options of a server. SizeBytes may be left out for an image that exists, and
// the rest always.
type Options struct {
	// SizeBytes of the disk, a multiple of a sector.
	SizeBytes int64
	// SectorBytes is what a loss of power leaves whole: 512, the default, or
	// 4096.
	SectorBytes int
	// CacheBytes bounds the memory of the write cache, 64 MiB by default. A full
	// cache stores sectors of its own accord, by the seed.
	CacheBytes int
	// Seed decides what survives a power cut.
	Seed uint64
	// KeepAll makes everything survive: the control.
	KeepAll bool
	// Export is the disk's name, "disk" by default. Clients that name none get
	// it too.
	Export string
	// Logger hears of clients and power cuts; silent if nil.
	Logger *slog.Logger
}

// Stats count requests since the start and say what is volatile.
type Stats struct {
	Reads, Writes, Flushes, Trims, Zeroes uint64
	Failed                                uint64 // answered with an error
	VolatileSectors                       int
	CacheBytes                            int // in use, see Options.CacheBytes
}

// Server serves one disk. Its methods are safe for concurrent use.
type Server struct {
	options  Options
	socket   string
	disk     *disk
	export   export
	listener *net.UnixListener
	workers  sync.WaitGroup
	stats    struct{ reads, writes, flushes, trims, zeroes, failed atomic.Uint64 }

	mu          sync.Mutex
	connections map[net.Conn]bool
	closed      bool

	once       sync.Once
	closeError error
}

// New opens the image, or makes it, and serves it on a unix socket until Close.
// The image is a raw file; a missing one becomes a sparse file of
// Options.SizeBytes.
func New(image, socket string, o Options) (*Server, error) {
	o = o.withDefaults()
	if len(socket) > maxPath {
		return nil, fmt.Errorf("serve %s: %w", socket, ErrPathTooLong)
	}
	if len(o.Export) > 255 {
		return nil, fmt.Errorf("serve %s: the export's name has %d bytes, more than 255", image, len(o.Export))
	}
	d, err := openDisk(image, o)
	if err != nil {
		return nil, err
	}
	s := &Server{options: o, socket: socket, disk: d, export: export{o.Export, d.size, preferredBytes}, connections: map[net.Conn]bool{}}
	if err := removeStale(socket); err != nil {
		return nil, errors.Join(err, d.file.Close())
	}
	if s.listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"}); err != nil {
		return nil, errors.Join(fmt.Errorf("serve %s: %w", image, err), d.file.Close())
	}
	s.workers.Go(s.accept)
	return s, nil
}

func (o Options) withDefaults() Options {
	if o.SectorBytes == 0 {
		o.SectorBytes = 512
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = defaultCacheBytes
	}
	if o.Export == "" {
		o.Export = "disk"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// openDisk opens the image and takes its lock.
func openDisk(image string, o Options) (*disk, error) {
	cache, err := writecache.New(writecache.Options{SectorBytes: o.SectorBytes, LimitBytes: o.CacheBytes, Seed: o.Seed, KeepAll: o.KeepAll})
	if err != nil {
		return nil, fmt.Errorf("serve %s: %w", image, err)
	}
	file, err := os.OpenFile(image, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("serve image: %w", err)
	}
	size, err := prepare(file, o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("serve %s: %w", image, err), file.Close())
	}
	return &disk{size: size, sector: int64(o.SectorBytes), file: file, cache: cache}, nil
}

// prepare locks the image, gives a new one its size and returns it.
func prepare(file *os.File, o Options) (int64, error) {
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return 0, ErrInUse
	}
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	size := info.Size()
	switch {
	case !info.Mode().IsRegular():
		return 0, errors.New("it is no regular file: take a file, not a device")
	case size == 0 && o.SizeBytes > 0 && o.SizeBytes%int64(o.SectorBytes) == 0:
		return o.SizeBytes, file.Truncate(o.SizeBytes)
	case size == 0 || o.SizeBytes%int64(o.SectorBytes) != 0 || size%int64(o.SectorBytes) != 0:
		return 0, fmt.Errorf("its size is %d bytes and %d are asked for: take a positive multiple of %d", size, o.SizeBytes, o.SectorBytes)
	case o.SizeBytes != 0 && o.SizeBytes != size:
		return 0, fmt.Errorf("it has %d bytes already, not %d: ask for that size or for none", size, o.SizeBytes)
	}
	return size, nil
}

// removeStale removes a socket that nobody listens to, as a killed server leaves
// it.
func removeStale(socket string) error {
	conn, err := net.Dial("unix", socket)
	switch {
	case err == nil:
		return errors.Join(fmt.Errorf("listen on %s: %w", socket, ErrInUse), conn.Close())
	case errors.Is(err, unix.ECONNREFUSED):
		return os.Remove(socket)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return fmt.Errorf("look for a server at %s: %w", socket, err)
}

// URI returns where clients find the disk, for qemu-img, qemu-io and QEMU's
// -drive.
func (s *Server) URI() string {
	// QEMU takes a plus for a plus, so this is no form's encoding.
	socket := strings.NewReplacer("%2F", "/", "&", "%26", "+", "%2B").Replace(url.PathEscape(s.socket))
	return (&url.URL{Scheme: "nbd+unix", Path: "/" + s.options.Export, RawQuery: "socket=" + socket}).String()
}

// PowerCut switches the disk off and on again. It drops all connections without
// answering what they asked, and each sector that was written since the last
// flush survives or vanishes by the seed. On return the image holds what a guest
// finds that starts again, and clients may connect.
func (s *Server) PowerCut() (writecache.Cut, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return writecache.Cut{}, ErrClosed
	}
	cut, err := s.disk.powerCut()
	for conn := range s.connections {
		_ = conn.Close() // Its worker sees it, and removes it.
	}
	s.options.Logger.Info("power cut", "number", cut.Number, "volatile", cut.Volatile, "newest", cut.Newest, "older", cut.Older, "lost", cut.Lost)
	if err != nil {
		return cut, fmt.Errorf("power cut: %w", err)
	}
	return cut, nil
}

// Flush makes everything durable, as a client's flush does.
func (s *Server) Flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	return s.disk.flush(s.disk.boot())
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	return Stats{
		Reads: s.stats.reads.Load(), Writes: s.stats.writes.Load(), Flushes: s.stats.flushes.Load(),
		Trims: s.stats.trims.Load(), Zeroes: s.stats.zeroes.Load(), Failed: s.stats.failed.Load(),
		VolatileSectors: s.disk.cache.Len(), CacheBytes: s.disk.cache.Bytes(),
	}
}

// Close drops the connections, stores what is volatile, as a machine does that
// is shut down in good order, and removes the socket. For the other way call
// PowerCut first. Close may be called again, and says the same.
func (s *Server) Close() error {
	s.once.Do(func() { s.closeError = s.close() })
	return s.closeError
}

func (s *Server) close() error {
	s.mu.Lock()
	s.closed = true
	err := s.listener.Close() // It removes the socket.
	for conn := range s.connections {
		_ = conn.Close()
	}
	s.mu.Unlock()
	s.workers.Wait()
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if err = errors.Join(err, s.disk.flushLocked(), s.disk.file.Close()); err != nil {
		return fmt.Errorf("close the block server: %w", err)
	}
	return nil
}

// accept takes clients until the listener closes.
func (s *Server) accept() {
	for {
		conn, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // Out of file descriptors, say: that passes.
			s.options.Logger.Warn("cannot take a client", "error", err)
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if !s.admit(conn) {
			_ = conn.Close()
		}
	}
}

// admit starts to serve a client, if there is room.
func (s *Server) admit(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.connections) >= maxConnections {
		s.options.Logger.Warn("client refused", "connections", len(s.connections), "closed", s.closed)
		return false
	}
	s.connections[conn] = true
	boot := s.disk.boot()
	s.workers.Go(func() {
		err := s.serve(conn, boot)
		s.mu.Lock()
		delete(s.connections, conn)
		s.mu.Unlock()
		_ = conn.Close()
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
			s.options.Logger.Warn("client dropped", "error", err)
		}
	})
	return true
}
