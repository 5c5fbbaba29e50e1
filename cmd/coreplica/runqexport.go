package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"

	"github.com/coreplica/coreplica/internal/hostcheck"
	"github.com/coreplica/coreplica/runq"
)

// Limits of the exporter. A scrape is one request of a few hundred bytes, and its
// answer a few kilobytes.
const (
	scrapeTime      = 10 * time.Second
	scrapeIdleTime  = 2 * time.Minute
	scrapeMaxHeader = 16 << 10
	shutdownTime    = time.Second
)

func newRunqExportCmd() *cobra.Command {
	listen := "127.0.0.1:9464"
	cmd := &cobra.Command{
		Use:   "export NAME",
		Short: "Serve a queue's counters to Prometheus",
		Long: `Serve the counters of an open run queue at /metrics, for Prometheus and what
reads its format. The queue is another process's of yours, opened with a name.
Each scrape asks it anew; while it is not open, coreplica_runq_up is 0 and nothing
else is there, so this may be started first and left running.

It listens on the loopback device only, unless --listen says otherwise, and answers
only requests that name this host, so that a page elsewhere cannot read it.`,
		Example: `  coreplica runq export mail

  # Let another machine scrape it, and look at it from here.
  coreplica runq export mail --listen 192.0.2.7:9464
  curl http://192.0.2.7:9464/metrics`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&listen, "listen", listen, "`host:port` to listen on; port 0 takes a free one")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return export(cmd.Context(), args[0], listen, cmd.ErrOrStderr())
	}
	return cmd
}

// export serves metrics until the context ends, which is not an error.
func export(ctx context.Context, name, listen string, stderr io.Writer) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w; another address or port may be free, and port 0 always is", listen, err)
	}
	server := &http.Server{
		Handler:           metricsHandler(name, listen),
		ReadHeaderTimeout: scrapeTime, ReadTimeout: scrapeTime, WriteTimeout: scrapeTime, IdleTimeout: scrapeIdleTime,
		MaxHeaderBytes: scrapeMaxHeader,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	fmt.Fprintf(stderr, "scrape http://%s/metrics; Ctrl-C ends it\n", listener.Addr())
	select {
	case err := <-failed:
		return fmt.Errorf("serve on %s: %w", listen, err)
	case <-ctx.Done():
	}
	// The context has ended, so waiting for open answers needs one that has not.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	if err = server.Shutdown(end); errors.Is(err, context.DeadlineExceeded) {
		err = server.Close()
	}
	<-failed
	if err != nil {
		return fmt.Errorf("stop serving: %w", err)
	}
	return nil
}

// metricsHandler answers scrapes, each with a look at the queue of its own.
func metricsHandler(name, listen string) http.Handler {
	bound := hostcheck.Of(listen)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, req *http.Request) {
		c := snapshotCollector{queue: name}
		s, err := runq.Look(req.Context(), name)
		switch {
		case err == nil:
			c.s = &s
		case !errors.Is(err, runq.ErrNotOpen):
			http.Error(w, "Cannot look: "+oneLine(err), http.StatusBadGateway)
			return
		}
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(c)
		promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, req)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		if !bound.Allows(req) {
			http.Error(w, fmt.Sprintf("This server answers to its own address only, not to %q. Ask it as localhost, or start it with that name in --listen.", req.Host), http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, req)
	})
}
