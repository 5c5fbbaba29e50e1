package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coreplica/coreplica/internal/hostcheck"
	"github.com/coreplica/coreplica/mirrorcost/report"
)

// DefaultAddr is where [ListenAndServe] listens unless told otherwise.
const DefaultAddr = "127.0.0.1:7070"

// Limits of the server. A page is one request of a few hundred bytes, and its
// answer a few megabytes at most.
const (
	readTime     = 5 * time.Second
	writeTime    = 60 * time.Second
	idleTime     = 120 * time.Second
	shutdownTime = time.Second
	maxHeader    = 16 << 10
)

// Options of the server. The zero value listens on [DefaultAddr], silently.
type Options struct {
	// Addr is a host and a port; port 0 takes any that is free.
	Addr string
	// Ready is called with the page's address once it can be opened.
	Ready func(url string)
	// Logger gets refused requests and failures; nil is silent.
	Logger *slog.Logger
}

func (o Options) logger() *slog.Logger {
	if o.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Logger
}

// ListenAndServe shows a report until the context ends, which is not an error.
func ListenAndServe(ctx context.Context, r *report.Report, o Options) error {
	if o.Addr == "" {
		o.Addr = DefaultAddr
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", o.Addr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w; another address or port may be free, and port 0 always is", o.Addr, err)
	}
	server := &http.Server{
		Handler:           Handler(r, o),
		ReadHeaderTimeout: readTime, ReadTimeout: readTime, WriteTimeout: writeTime, IdleTimeout: idleTime,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(o.logger().Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	address := listener.Addr().(*net.TCPAddr)
	if !address.IP.IsLoopback() {
		o.logger().Warn("the report can be read from other machines", "address", address)
	}
	if o.Ready != nil {
		o.Ready(pageURL(address))
	}
	select {
	case err := <-failed:
		return fmt.Errorf("serve on %s: %w", o.Addr, err)
	case <-ctx.Done():
	}
	// The context has ended, so waiting for open answers needs one that has
	// not.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	err = server.Shutdown(end)
	if errors.Is(err, context.DeadlineExceeded) {
		// A browser keeps spare connections open that it never asked
		// anything on.
		err = server.Close()
	}
	<-failed
	if err != nil {
		return fmt.Errorf("stop serving: %w", err)
	}
	return nil
}

// pageURL is an address that a browser on this machine can open.
func pageURL(address *net.TCPAddr) string {
	host := address.IP.String()
	if address.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, fmt.Sprint(address.Port)) + "/"
}

// Handler serves a report's page and its other forms. It answers to the host
// of o.Addr, to localhost and to loopback addresses, and where o.Addr names no
// host, to the address that the request came in on.
func Handler(r *report.Report, o Options) http.Handler {
	h := &handler{logger: o.logger(), bound: hostcheck.Of(o.Addr), files: map[string]*file{}}
	h.add("/", "text/html; charset=utf-8", func(w io.Writer) error { return writePage(w, r, served) })
	for _, d := range downloads {
		h.add("/"+d.Name, d.kind, func(w io.Writer) error { return d.write(w, r) })
	}
	return h
}

type handler struct {
	logger *slog.Logger
	bound  hostcheck.Bound
	files  map[string]*file
}

// file is rendered when it is first asked for: a report does not change.
type file struct {
	kind    string
	content func() ([]byte, error)
}

func (h *handler) add(path, kind string, write func(io.Writer) error) {
	h.files[path] = &file{kind, sync.OnceValues(func() ([]byte, error) {
		var buf bytes.Buffer
		err := write(&buf)
		return buf.Bytes(), err
	})}
}

func (h *handler) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", policy+"; frame-ancestors 'none'")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Cache-Control", "no-store")
	f := h.files[req.URL.Path]
	switch {
	case !h.bound.Allows(req):
		h.logger.Warn("refused a request for another host", "host", req.Host, "from", req.RemoteAddr)
		http.Error(w, "This server answers to its own address only, not to "+fmt.Sprintf("%q", req.Host)+
			". Open it as localhost, or start it with that name in its address.", http.StatusForbidden)
		return
	case f == nil:
		http.Error(w, "There is no such page.", http.StatusNotFound)
		return
	case req.Method != http.MethodGet && req.Method != http.MethodHead:
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "A report can only be read.", http.StatusMethodNotAllowed)
		return
	}
	content, err := f.content()
	if err != nil {
		h.logger.Error("cannot render", "path", req.URL.Path, "error", err)
		http.Error(w, "Cannot render: "+err.Error(), http.StatusInternalServerError)
		return
	}
	header.Set("Content-Type", f.kind)
	if req.URL.Path != "/" {
		header.Set("Content-Disposition", "attachment; filename="+strings.TrimPrefix(req.URL.Path, "/"))
	}
	header.Set("Content-Length", fmt.Sprint(len(content)))
	if req.Method == http.MethodGet {
		_, _ = w.Write(content) // Whoever asked has gone.
	}
}
