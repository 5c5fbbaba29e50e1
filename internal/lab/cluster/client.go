package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/coreplica/coreplica/internal/cleanup"
	"github.com/coreplica/coreplica/internal/lab/agent"
)

func pid() int { return os.Getpid() }

var (
	// ErrNoLab is returned where no lab is up.
	ErrNoLab = errors.New("no lab is up; start one with `coreplica lab up`")
	// ErrUsage is wrapped by what a lab refuses because it makes no sense.
	ErrUsage = errors.New("refused")
)

// Client speaks to the lab of this machine. Its methods may be called from
// several goroutines.
type Client struct {
	socket string
	web    *http.Client
}

// Find returns a client of the lab that is up, or [ErrNoLab].
func Find(o cleanup.Options) (*Client, error) {
	for _, socket := range cleanup.Find(o, socketName) {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			continue // Its process is dead; Clean is for that.
		}
		_ = conn.Close()
		return newClient(socket), nil
	}
	return nil, ErrNoLab
}

func newClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, web: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// call asks the lab for something and decodes the result.
func (c *Client) call(ctx context.Context, method, path, body string, result any) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://lab"+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	response, err := c.web.Do(request)
	if err != nil {
		return fmt.Errorf("ask the lab: %w", err)
	}
	defer response.Body.Close()
	return decode(response.Body, result)
}

func decode(body io.Reader, result any) error {
	var r reply
	if err := json.NewDecoder(body).Decode(&r); err != nil {
		return fmt.Errorf("ask the lab: %w", err)
	}
	switch {
	case r.Usage:
		return fmt.Errorf("%w: %s", ErrUsage, r.Error)
	case r.Error != "":
		return errors.New(r.Error)
	}
	return json.Unmarshal(r.Result, result)
}

// Status says how the lab is.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.call(ctx, http.MethodGet, "/status", "", &s)
}

// Kill cuts a node's power and returns what the disk lost, in words.
func (c *Client) Kill(ctx context.Context, node string) (said string, err error) {
	return said, c.call(ctx, http.MethodPost, "/kill/"+node, "", &said)
}

// Start boots a node that is off.
func (c *Client) Start(ctx context.Context, node string) (said string, err error) {
	return said, c.call(ctx, http.MethodPost, "/start/"+node, "", &said)
}

// Net adds a command to the network's faults.
func (c *Client) Net(ctx context.Context, command string) error {
	var said string
	return c.call(ctx, http.MethodPost, "/net", command, &said)
}

// Down takes the lab down and waits until its process has removed everything.
func (c *Client) Down(ctx context.Context) error {
	var said string
	if err := c.call(ctx, http.MethodPost, "/down", "", &said); err != nil {
		return err
	}
	return c.gone(ctx)
}

// Agent reaches a node's agent.
func (c *Client) Agent(ctx context.Context, node string) (*agent.Client, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", c.socket)
	if err != nil {
		return nil, fmt.Errorf("ask the lab: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := fmt.Fprintf(conn, "GET /agent/%s HTTP/1.1\r\nHost: lab\r\n\r\n", node); err != nil {
		return nil, errors.Join(fmt.Errorf("ask the lab: %w", err), conn.Close())
	}
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ask the lab: %w", err), conn.Close())
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		var nothing string
		return nil, errors.Join(decode(response.Body, &nothing), conn.Close())
	}
	return agent.Dial(ctx, &stream{Conn: conn, r: reader})
}

// stream reads what the reader of the answer has taken too much.
type stream struct {
	net.Conn
	r *bufio.Reader
}

func (s *stream) Read(p []byte) (int, error) { return s.r.Read(p) }

// gone waits until the lab's process has removed its folder.
func (c *Client) gone(ctx context.Context) error {
	for {
		if _, err := os.Lstat(filepath.Dir(c.socket)); errors.Is(err, os.ErrNotExist) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the lab to end: %w; `coreplica clean` removes what a dead one leaves", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}
