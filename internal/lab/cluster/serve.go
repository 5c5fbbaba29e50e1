package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreplica/coreplica/internal/cleanup"
	"github.com/coreplica/coreplica/internal/lab/vswitch/faults"
)

// socketName is the name of the socket in the run's folder.
const socketName = "lab.sock"

// Schema is the version of [Status] in JSON.
const Schema = "coreplica.lab/1"

// Status is what a lab says of itself.
type Status struct {
	Schema   string       `json:"schema"`
	PID      int          `json:"pid"`
	Kernel   string       `json:"kernel"`
	Version  string       `json:"kernel_version"`
	Topology string       `json:"topology"`
	Seed     uint64       `json:"seed"`
	Nodes    []NodeStatus `json:"nodes"`
	// Rules are the network's faults, as `lab net` takes them.
	Rules []string `json:"rules"`
	// Links are the network's counters, from node to node.
	Links []LinkStatus `json:"links"`
}

// NodeStatus is what a lab says of one node.
type NodeStatus struct {
	Name    string `json:"name"`
	State   string `json:"state"`
	Address string `json:"address"`
	// BootNs is from the start of the guest until it ran commands.
	BootNs time.Duration `json:"boot_ns"`
	// Log is the file with what the node's agent said.
	Log string `json:"log"`
}

// LinkStatus are the counters of one direction between two nodes.
type LinkStatus struct {
	From       string `json:"from"`
	To         string `json:"to"`
	Frames     uint64 `json:"frames"`
	Delivered  uint64 `json:"delivered"`
	Dropped    uint64 `json:"dropped"`
	Duplicated uint64 `json:"duplicated"`
	Delayed    uint64 `json:"delayed"`
	Reordered  uint64 `json:"reordered"`
	Cut        uint64 `json:"cut"`
	Overflow   uint64 `json:"overflow"`
	Absent     uint64 `json:"absent"`
}

// server answers on the lab's socket, from before the first node boots.
type server struct {
	ctx  context.Context
	down context.CancelFunc
	run  *cleanup.Run
	o    *Options

	mu sync.Mutex
	c  *Cluster // nil until the nodes are up
}

// Serve runs a lab until the context ends or a client takes it down. It calls
// ready when all nodes are up.
func Serve(ctx context.Context, run *cleanup.Run, o Options, ready func(Status)) (err error) {
	ctx, down := context.WithCancel(ctx)
	defer down()
	s := &server{ctx: ctx, down: down, run: run, o: &o}
	listener, err := net.Listen("unix", filepath.Join(run.Dir(), socketName))
	if err != nil {
		return fmt.Errorf("serve lab: %w", err)
	}
	web := &http.Server{Handler: s.routes(), ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- web.Serve(listener) }()
	defer func() { err = errors.Join(err, web.Close()) }()
	c, err := Open(ctx, run, o)
	if err != nil {
		if ctx.Err() != nil {
			return nil // Taken down while it came up.
		}
		return err
	}
	s.mu.Lock()
	s.c = c
	s.mu.Unlock()
	ready(s.status())
	select {
	case <-ctx.Done():
		return c.Close()
	case err := <-served:
		return errors.Join(err, c.Close())
	}
}

func (s *server) cluster() (*Cluster, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c == nil {
		return nil, errors.New("the lab is still coming up; try again when `coreplica lab ls` shows its nodes")
	}
	return s.c, nil
}

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.status(), nil) })
	mux.HandleFunc("POST /down", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, "going down", nil)
		s.down()
	})
	mux.HandleFunc("POST /kill/{node}", func(w http.ResponseWriter, r *http.Request) {
		c, err := s.cluster()
		var said string
		if err == nil {
			said, err = c.Kill(r.PathValue("node"))
		}
		answer(w, said, err)
	})
	mux.HandleFunc("POST /start/{node}", func(w http.ResponseWriter, r *http.Request) {
		c, err := s.cluster()
		if err == nil {
			// The node lives as long as the lab, not as the request.
			err = c.Boot(s.ctx, r.PathValue("node"))
		}
		answer(w, r.PathValue("node")+" is up", err)
	})
	mux.HandleFunc("POST /net", func(w http.ResponseWriter, r *http.Request) { answer(w, "", s.apply(r)) })
	mux.HandleFunc("GET /agent/{node}", s.agent)
	return mux
}

// apply adds a command to the network's rules.
func (s *server) apply(r *http.Request) error {
	c, err := s.cluster()
	if err != nil {
		return err
	}
	text, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, faults.MaxText))
	if err != nil {
		return err
	}
	command, err := faults.ParseCommand(string(text))
	if err != nil {
		return err
	}
	for _, node := range append([]string{command.From, command.To}, slices.Concat(command.Groups...)...) {
		if node != "" && node != faults.Any && !slices.ContainsFunc(s.status().Nodes, func(n NodeStatus) bool { return n.Name == node }) {
			return fmt.Errorf("%q: %w", node, ErrNoNode)
		}
	}
	return c.network.Apply(command)
}

// agent turns the connection into a stream to a node's agent.
func (s *server) agent(w http.ResponseWriter, r *http.Request) {
	c, err := s.cluster()
	if err != nil {
		answer(w, nil, err)
		return
	}
	stream, err := c.Stream(r.PathValue("node"))
	if err != nil {
		answer(w, nil, err)
		return
	}
	defer stream.Close() // Ends the other direction, too.
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		answer(w, nil, errors.New("this connection cannot be a stream"))
		return
	}
	conn, buffered, err := hijacker.Hijack()
	if err != nil {
		return // The client is gone.
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: coreplica-agent\r\nConnection: Upgrade\r\n\r\n"); err != nil {
		return
	}
	ended := make(chan struct{}, 2)
	go func() { _, _ = io.Copy(stream, buffered); ended <- struct{}{} }()
	go func() { _, _ = io.Copy(conn, stream); ended <- struct{}{} }()
	<-ended
}

// reply is the body of every answer but a stream.
type reply struct {
	Error  string          `json:"error,omitempty"`
	Usage  bool            `json:"usage,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
}

func answer(w http.ResponseWriter, result any, err error) {
	var r reply
	var syntax *faults.SyntaxError
	if err != nil {
		r.Error, r.Usage = err.Error(), errors.Is(err, ErrNoNode) || errors.As(err, &syntax)
		w.WriteHeader(http.StatusConflict)
	} else if r.Result, err = json.Marshal(result); err != nil {
		r.Error = err.Error()
	}
	_ = json.NewEncoder(w).Encode(r) // The client is gone.
}

func (s *server) status() Status {
	st := Status{Schema: Schema, PID: pid(), Kernel: s.o.Kernel.Release, Version: s.o.Kernel.Version, Topology: s.o.Topology.String(), Seed: s.o.Seed}
	s.mu.Lock()
	c := s.c
	s.mu.Unlock()
	if c == nil {
		for i := range s.o.Nodes {
			st.Nodes = append(st.Nodes, NodeStatus{Name: name(i), State: Booting, Address: address(i)})
		}
		return st
	}
	c.mu.Lock()
	for _, n := range c.nodes {
		st.Nodes = append(st.Nodes, NodeStatus{Name: n.name, State: n.state, Address: address(n.index), BootNs: n.boot, Log: filepath.Join(c.dir(n), "log")})
	}
	c.mu.Unlock()
	st.Rules = strings.FieldsFunc(c.network.Rules().String(), func(r rune) bool { return r == ';' })
	for i, rule := range st.Rules {
		st.Rules[i] = strings.TrimSpace(rule)
	}
	for link, n := range c.network.Stats().Links {
		st.Links = append(st.Links, LinkStatus{
			From: link.From, To: link.To, Frames: n.Frames, Delivered: n.Delivered, Dropped: n.Dropped, Duplicated: n.Duplicated,
			Delayed: n.Delayed, Reordered: n.Reordered, Cut: n.Cut, Overflow: n.Overflow, Absent: n.Absent,
		})
	}
	slices.SortFunc(st.Links, func(a, b LinkStatus) int { return strings.Compare(a.From+" "+a.To, b.From+" "+b.To) })
	return st
}
