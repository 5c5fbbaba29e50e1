package serve

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"

	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/mirrorcost/report"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// example is the invented run that the tests of package report make.
func example(t *testing.T) *report.Report {
	t.Helper()
	r, err := report.Open("../report/testdata/run")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func get(t *testing.T, h http.Handler, method, host, path string) *http.Response {
	t.Helper()
	req := httptest.NewRequest(method, "http://any.invalid"+path, nil)
	req.Host = host
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	return rec.Result()
}

func body(t *testing.T, res *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestHostCheck(t *testing.T) {
	r := example(t)
	for _, tt := range []struct {
		addr string
		host string
		code int
	}{
		{"127.0.0.1:7070", "127.0.0.1:7070", 200},
		{"127.0.0.1:7070", "localhost:8080", 200}, // a forwarded port
		{"127.0.0.1:7070", "LOCALHOST", 200},
		{"127.0.0.1:7070", "[::1]:7070", 200},
		{"127.0.0.1:7070", "[::1]", 200},
		{"127.0.0.1:7070", "evil.example:7070", 403},
		{"127.0.0.1:7070", "127.0.0.1.evil.example", 403},
		{"127.0.0.1:7070", "localhost.evil.example", 403},
		{"127.0.0.1:7070", "192.0.2.7:7070", 403},
		{"127.0.0.1:7070", "", 403},
		{"Lab.example:7070", "lab.example.:7070", 200},
		{"lab.example:7070", "other.example:7070", 403},
		{"192.0.2.7:7070", "192.0.2.7:7070", 200},
		{"[2001:db8::1]:7070", "[2001:db8::1]:7070", 200},
		{":7070", "evil.example:7070", 403},
		{"0.0.0.0:7070", "192.0.2.9:7070", 200}, // where the request came in
		{"0.0.0.0:7070", "192.0.2.8:7070", 403},
		{"", "localhost", 200},
		{"", "evil.example", 403},
	} {
		var log bytes.Buffer
		h := Handler(r, Options{Addr: tt.addr, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		req := httptest.NewRequest("GET", "http://any.invalid/table.txt", nil)
		req.Host = tt.host
		local := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 9), Port: 7070}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, req.WithContext(context.WithValue(req.Context(), http.LocalAddrContextKey, local)))
		if rec.Code != tt.code {
			t.Errorf("listening on %q, asked as %q: %d, want %d", tt.addr, tt.host, rec.Code, tt.code)
		}
		if tt.code == 403 && (strings.Contains(rec.Body.String(), r.Mirror.Name) || !strings.Contains(log.String(), "refused")) {
			t.Errorf("asked as %q: body %q, log %q", tt.host, rec.Body, &log)
		}
	}
}

func TestPathsAndMethods(t *testing.T) {
	h := Handler(example(t), Options{})
	for _, tt := range []struct {
		method, path string
		code         int
	}{
		{"GET", "/", 200}, {"HEAD", "/", 200}, {"GET", "/report.json", 200},
		{"GET", "/nothing", 404}, {"GET", "//", 404}, {"GET", "/../page.go", 404},
		{"POST", "/", 405}, {"DELETE", "/report.json", 405},
	} {
		res := get(t, h, tt.method, "localhost", tt.path)
		text := body(t, res)
		if res.StatusCode != tt.code {
			t.Errorf("%s %s: %d, want %d", tt.method, tt.path, res.StatusCode, tt.code)
		}
		if tt.method == "HEAD" && text != "" {
			t.Errorf("HEAD has a body of %d bytes", len(text))
		}
		policy := res.Header.Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none'; ") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "http") {
			t.Errorf("%s %s: policy %q", tt.method, tt.path, policy)
		}
		if got := res.Header.Get("X-Content-Type-Options"); got != "nosniff" {
			t.Errorf("%s %s: X-Content-Type-Options %q", tt.method, tt.path, got)
		}
	}
}

func TestDownloads(t *testing.T) {
	r := example(t)
	h := Handler(r, Options{})
	page := body(t, get(t, h, "GET", "localhost", "/"))
	for _, d := range downloads {
		if !strings.Contains(page, `href="`+d.Name+`"`) {
			t.Errorf("the page has no link to %s", d.Name)
		}
	}
	parsed, err := report.Parse([]byte(body(t, get(t, h, "GET", "localhost", "/report.json"))))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r.Tax, parsed.Tax); diff != "" {
		t.Errorf("report.json (-served +want):\n%s", diff)
	}
	for _, name := range []string{"/profile.pb.gz", "/difference.pb.gz"} {
		res := get(t, h, "GET", "localhost", name)
		p, err := profile.ParseData([]byte(body(t, res)))
		if err != nil || len(p.Sample) == 0 {
			t.Errorf("%s: %v", name, err)
		}
		if got := res.Header.Get("Content-Disposition"); got != "attachment; filename="+name[1:] {
			t.Errorf("%s: disposition %q", name, got)
		}
	}
	var folded bytes.Buffer
	if err := report.Write(&folded, r, report.Folded); err != nil {
		t.Fatal(err)
	}
	if body(t, get(t, h, "GET", "localhost", "/stacks.folded")) != folded.String() {
		t.Error("stacks.folded is not what the report writes")
	}
}

// outside is anything that a browser would fetch from elsewhere.
var outside = regexp.MustCompile(`(?i)(https?:)?//[a-z0-9]|@import|url\(`)

func TestThePageNeedsNothingElse(t *testing.T) {
	var file bytes.Buffer
	if err := WriteHTML(&file, example(t)); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"file": file.String(), "served": body(t, get(t, Handler(example(t), Options{}), "GET", "localhost", "/")),
	} {
		if found := outside.FindString(text); found != "" {
			t.Errorf("%s refers to %q", name, found)
		}
		if strings.Contains(text, "ZgotmplZ") || strings.Contains(text, "%!") {
			t.Errorf("%s has a value that the template refused", name)
		}
		if strings.Contains(text, " style=") || regexp.MustCompile(` on[a-z]+="`).MatchString(text) {
			t.Errorf("%s has inline style or script, which its policy forbids", name)
		}
	}
	if strings.Contains(file.String(), "download>") {
		t.Error("the file links to files that only the server has")
	}
}

// Names come from the kernel and from files that somebody sent.
func TestThePageEscapes(t *testing.T) {
	r := example(t)
	const evil = `</script><script>alert(1)</script><img src=x onerror=alert(1)>`
	r.Verdict, r.Warnings, r.Mirror.Name, r.Machine.Kernel = evil, []string{evil}, evil, evil
	r.Mirror.Stages[0].Stage, r.Mirror.Contexts[0].Context = evil, evil
	r.Mirror.BiosDataPerDevice[evil] = 1
	r.Samples[0].Stack = []report.Frame{{Function: evil}}
	r.Samples[1].Context, r.Samples[1].Stage = evil, evil
	var file bytes.Buffer
	if err := WriteHTML(&file, r); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(file.String(), "<script>alert") || strings.Contains(file.String(), "<img") {
		t.Error("a name became markup")
	}
}

func TestPagesOfOddReports(t *testing.T) {
	spread := report.Interval{Mean: 10, Low: -20, High: 40}
	for name, r := range map[string]*report.Report{
		"empty":    {},
		"negative": {Tax: report.Tax{CPUNsPerWrite: spread}, Baseline: report.Leg{Stages: []report.Stage{{Stage: "x", NsPerWrite: -5, Low: -9, High: -1}}}},
		"buckets":  {Baseline: report.Leg{LatencyHist: report.Histogram{UpperNs: []uint64{0, 0, 5, 5, 3, math.MaxUint64}, Count: []uint64{0, 1, 2, 3, 4, math.MaxUint64}}}},
		"no count": {Mirror: report.Leg{LatencyHist: report.Histogram{UpperNs: []uint64{8}, Count: []uint64{0}}}},
	} {
		var file bytes.Buffer
		if err := WriteHTML(&file, r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		markup, _, _ := strings.Cut(file.String(), "<script>")
		if found := regexp.MustCompile(`NaN|[+-]Inf`).FindString(markup); found != "" {
			t.Errorf("%s: the page has the figure %s", name, found)
		}
		if name == "negative" && !strings.Contains(file.String(), report.NoDifference) {
			t.Errorf("%s: the page does not say %q", name, report.NoDifference)
		}
	}
	var file bytes.Buffer
	err := WriteHTML(&file, &report.Report{ElapsedSeconds: math.NaN()})
	var field *report.FieldError
	if !errors.As(err, &field) || field.Field != "elapsed_seconds" || file.Len() > 0 {
		t.Errorf("a report that is not finite: %v, %d bytes", err, file.Len())
	}
}

func TestListenAndServe(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan string, 1), make(chan error, 1)
	go func() {
		done <- ListenAndServe(ctx, example(t), Options{Addr: "127.0.0.1:0", Ready: func(url string) { ready <- url }})
	}()
	url := <-ready
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	res, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	if text := body(t, res); res.StatusCode != 200 || !strings.Contains(text, "btrfs-raid1") {
		t.Errorf("%s: %d", url, res.StatusCode)
	}
	address := strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/")
	if err := ListenAndServe(ctx, example(t), Options{Addr: address}); err == nil || !strings.Contains(err.Error(), "another address or port") {
		t.Errorf("listening twice on %s: %v", address, err)
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("the end of the context is not an error: %v", err)
		}
	case <-time.After(2 * shutdownTime):
		t.Fatal("the server does not stop")
	}
	if _, err := client.Get(url); err == nil {
		t.Error("the server still answers")
	}
}

// What the flame graph shows adds up to the cost of a write.
func TestFlameAddsUp(t *testing.T) {
	r := example(t)
	var b, m float64
	var walk func(f *frame, depth int)
	walk = func(f *frame, depth int) {
		for _, s := range f.Self {
			b, m = b+s[1], m+s[2]
		}
		for i, c := range f.Children {
			if i > 0 && c.total > f.Children[i-1].total {
				t.Errorf("%s stands after %s and is larger", c.Name, f.Children[i-1].Name)
			}
			walk(c, depth+1)
		}
	}
	walk(buildFlame(r, stageNames(r)), 0)
	if math.Abs(b-r.Baseline.CPUNsPerWrite.Mean) > 0.5 || math.Abs(m-r.Mirror.CPUNsPerWrite.Mean) > 0.5 {
		t.Errorf("flame graphs of %.1f and %.1f ns, want %.1f and %.1f", b, m, r.Baseline.CPUNsPerWrite.Mean, r.Mirror.CPUNsPerWrite.Mean)
	}
}

func TestTicks(t *testing.T) {
	for _, tt := range []struct {
		axis axis
		want []string
	}{
		{axis{0, 43000}, []string{"0", "10 µs", "20 µs", "30 µs", "40 µs"}},
		{axis{-300, 900}, []string{"-200 ns", "0", "200 ns", "400 ns", "600 ns", "800 ns"}},
		{axis{0, 1.3e6}, []string{"0", "200 µs", "400 µs", "600 µs", "800 µs", "1 ms", "1.2 ms"}},
		{axis{0, 0}, nil},
	} {
		var got []string
		for _, tick := range tt.axis.ticks() {
			got = append(got, tick.Label)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%v (-want +got):\n%s", tt.axis, diff)
		}
	}
}
