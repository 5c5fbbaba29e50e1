package serve

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/coreplica/coreplica/internal/testkit"
	"github.com/coreplica/coreplica/mirrorcost/report"
)

// screenshotsEnv names a folder for the pictures that the browser test takes.
const screenshotsEnv = "COREPLICA_SCREENSHOTS"

// watcher collects what a page asks for and complains about.
type watcher struct {
	mu         sync.Mutex
	requests   []string
	complaints []string
}

func (w *watcher) event(e any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch e := e.(type) {
	case *network.EventRequestWillBeSent:
		w.requests = append(w.requests, e.Request.URL)
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			w.complaints = append(w.complaints, fmt.Sprintf("console: %v", e.Args))
		}
	case *runtime.EventExceptionThrown:
		w.complaints = append(w.complaints, fmt.Sprintf("%s %v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception))
	case *log.EventEntryAdded:
		w.complaints = append(w.complaints, e.Entry.Text+" "+e.Entry.URL)
	}
}

// check fails the test for complaints and for requests that left the origin.
func (w *watcher) check(t *testing.T, origin string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, complaint := range w.complaints {
		t.Errorf("the browser complains: %s", complaint)
	}
	for _, url := range w.requests {
		if !strings.HasPrefix(url, origin) && url != "data:," {
			t.Errorf("a request left the origin %s: %.200s", origin, url)
		}
	}
	if len(w.requests) == 0 {
		t.Error("the browser asked for nothing, so it was not watched")
	}
}

// browser starts Chromium and returns a context for its tabs.
func browser(t *testing.T) context.Context {
	t.Helper()
	testkit.Need(t, testkit.Chromium)
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.UserDataDir(t.TempDir()), chromedp.Flag("hide-scrollbars", true))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	timed, cancelTime := context.WithTimeout(context.Background(), 60*time.Second)
	allocated, cancelBrowser := chromedp.NewExecAllocator(timed, options...)
	ctx, cancelTab := chromedp.NewContext(allocated)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Errorf("close the browser: %v", err)
		}
		cancelTab()
		cancelBrowser()
		cancelTime()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start the browser: %v", err)
	}
	return ctx
}

// open opens a page in a tab of its own and watches it.
func open(t *testing.T, browser context.Context, url string) (context.Context, *watcher) {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	run(t, ctx)
	w := new(watcher)
	if err := chromedp.Listen(ctx, w.event); err != nil {
		t.Fatal(err)
	}
	call(t, ctx, network.Enable, network.EnableParams{})
	call(t, ctx, log.Enable, cdp.Empty{})
	run(t, ctx, chromedp.EmulateViewport(1280, 900), chromedp.Navigate(url), chromedp.WaitVisible("#flame .frame"))
	return ctx, w
}

func run(t *testing.T, ctx context.Context, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(ctx, steps...); err != nil {
		t.Fatal(err)
	}
}

func call[P, R any](t *testing.T, ctx context.Context, command cdp.Command[P, R], params P) {
	t.Helper()
	if _, err := chromedp.Call(ctx, command, params); err != nil {
		t.Fatal(err)
	}
}

func evaluate[T any](t *testing.T, ctx context.Context, script string) T {
	t.Helper()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](script))
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip(testkit.SkipLine("short", "the race detector sees nothing of a browser, and its requests are made by other tests too"))
	}
	b := browser(t)
	r := example(t)

	ready, done := make(chan string, 1), make(chan error, 1)
	serving, stop := context.WithCancel(t.Context())
	go func() {
		done <- ListenAndServe(serving, r, Options{Addr: "127.0.0.1:0", Ready: func(url string) { ready <- url }})
	}()
	url := <-ready
	path := filepath.Join(t.TempDir(), "report.html")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteHTML(f, r); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}

	for name, address := range map[string]string{"served": url, "file": "file://" + path} {
		t.Run(name, func(t *testing.T) {
			ctx, w := open(t, b, address)
			checkBars(t, ctx, r)
			checkZoom(t, ctx)
			checkKeyboard(t, ctx)
			checkDifference(t, ctx)
			checkSearch(t, ctx)
			checkWidths(t, ctx)
			w.check(t, address)
			if name == "served" {
				screenshots(t, ctx)
			}
		})
	}
	t.Run("control", func(t *testing.T) {
		ctx, w := open(t, b, url)
		// A page that does reach out must be noticed, or the checks above
		// prove nothing.
		run(t, ctx, chromedp.Evaluate[chromedp.Void](`fetch("http://192.0.2.1/").catch(() => 0); console.error("seen"); 1`))
		for range 50 {
			w.mu.Lock()
			n := len(w.complaints)
			w.mu.Unlock()
			if n >= 2 {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Errorf("the browser complained only %q", w.complaints)
	})
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func checkBars(t *testing.T, ctx context.Context, r *report.Report) {
	t.Helper()
	for leg, stages := range map[string][]report.Stage{"baseline": r.Baseline.Stages, "mirror": r.Mirror.Stages} {
		if got := evaluate[int](t, ctx, `document.querySelectorAll(".stages rect.bar.`+leg+`").length`); got != len(stages) {
			t.Errorf("%d bars for the %d stages of the %s", got, len(stages), leg)
		}
	}
	// The style sheet must be in force: its hash is in the policy.
	if got := evaluate[string](t, ctx, `getComputedStyle(document.querySelector("rect.bar.baseline")).fill`); got != "rgb(68, 119, 170)" {
		t.Errorf("a bar is filled with %s", got)
	}
	widest := evaluate[[]float64](t, ctx, `[...document.querySelectorAll("rect.bar.mirror")].map(e => e.getBoundingClientRect().width)`)
	for i := 1; i < len(widest); i++ {
		if widest[i] > widest[i-1] && i < len(widest)-1 { // "other" is last, whatever its size.
			t.Errorf("bar %d is wider than the one above it: %v", i, widest)
		}
	}
}

const frameNamed = `[...document.querySelectorAll("#flame .frame")].find(e => e.frame.n === %q)`

func frameWidth(t *testing.T, ctx context.Context, name string) float64 {
	t.Helper()
	return evaluate[float64](t, ctx, fmt.Sprintf(`((e) => e ? e.getBoundingClientRect().width / document.getElementById("flame").clientWidth : 0)(`+frameNamed+`)`, name))
}

func checkZoom(t *testing.T, ctx context.Context) {
	t.Helper()
	before := frameWidth(t, ctx, "worker/loop_workfn")
	if before < 0.15 || before > 0.3 {
		t.Errorf("worker/loop_workfn is %.3f of the graph, want its 23.0 of 104.2 µs", before)
	}
	run(t, ctx, chromedp.Evaluate[chromedp.Void](fmt.Sprintf(frameNamed+`.click()`, "worker/loop_workfn")))
	if got := frameWidth(t, ctx, "worker/loop_workfn"); got < 0.99 {
		t.Errorf("after a click it is %.3f of the graph, want all", got)
	}
	if got := frameWidth(t, ctx, "load/kernel"); got != 0 {
		t.Errorf("after the click load/kernel is still %.3f of the graph", got)
	}
	run(t, ctx, chromedp.Click("#reset"))
	if got := frameWidth(t, ctx, "worker/loop_workfn"); got != before {
		t.Errorf("after the reset it is %.3f of the graph, want %.3f", got, before)
	}
	if !evaluate[bool](t, ctx, `document.getElementById("reset").disabled`) {
		t.Error("there is still a zoom to reset")
	}
}

func checkKeyboard(t *testing.T, ctx context.Context) {
	t.Helper()
	const focused = `document.activeElement.frame ? document.activeElement.frame.n : document.activeElement.tagName`
	// Tab must reach the graph from the control before it.
	run(t, ctx, chromedp.Focus("#search"), chromedp.KeyEvent(kb.Tab))
	if got := evaluate[string](t, ctx, focused); got != "a write" {
		t.Errorf("Tab reaches %s, want the graph's root", got)
	}
	run(t, ctx, chromedp.KeyEvent(kb.ArrowDown), chromedp.KeyEvent(kb.ArrowRight))
	second := evaluate[string](t, ctx, focused)
	run(t, ctx, chromedp.KeyEvent(kb.Enter))
	if got := frameWidth(t, ctx, second); got < 0.99 {
		t.Errorf("Enter on %s makes it %.3f of the graph", second, got)
	}
	run(t, ctx, chromedp.KeyEvent(kb.Escape))
	if got := frameWidth(t, ctx, second); got > 0.9 {
		t.Errorf("after Escape %s is %.3f of the graph", second, got)
	}
	if n := evaluate[int](t, ctx, `document.querySelectorAll("#flame [tabindex='0']").length`); n != 1 {
		t.Errorf("%d frames can be reached by Tab, want one", n)
	}
}

func checkDifference(t *testing.T, ctx context.Context) {
	t.Helper()
	run(t, ctx, chromedp.Click(`[data-view="difference"]`))
	for name, want := range map[string]string{
		"bio_alloc_clone":                "d3",  // the mirror alone has it
		"softirq/BLOCK":                  "d-1", // 3.5 of 4.9 µs
		"load/kernel":                    "d2",  // 43.5 of 17.0 µs
		"hardirq/local_timer":            "d1",  // 20 of 310 ns, but by the ledger alone, which does not sample
		"softirq/SCHED":                  "d0",  // 70 ns on a few samples
		"worker/btrfs_end_bio_work":      "d3",
		"entry_SYSCALL_64_after_hwframe": "d2",
	} {
		got := evaluate[string](t, ctx, fmt.Sprintf(`((e) => e ? [...e.classList].find(c => /^d-?\d$/.test(c)) : "")(`+frameNamed+`)`, name))
		if got != want {
			t.Errorf("%s is coloured %q, want %q", name, got, want)
		}
	}
	run(t, ctx, chromedp.Click(`[data-width="mirror"]`))
	byMirror := frameWidth(t, ctx, "softirq/BLOCK")
	run(t, ctx, chromedp.Click(`[data-width="max"]`))
	if byMax := frameWidth(t, ctx, "softirq/BLOCK"); byMax <= byMirror {
		t.Errorf("softirq/BLOCK costs the baseline more: %.4f of the graph by the larger leg, %.4f by the mirror", byMax, byMirror)
	}
	run(t, ctx, chromedp.Click(`[data-view="baseline"]`))
	if got := frameWidth(t, ctx, "bio_alloc_clone"); got != 0 {
		t.Errorf("the baseline has a bio_alloc_clone of %.3f", got)
	}
	run(t, ctx, chromedp.Click(`[data-view="mirror"]`))
}

func checkSearch(t *testing.T, ctx context.Context) {
	t.Helper()
	run(t, ctx, chromedp.SendKeys("#search", "TRY_to_wake"))
	found := evaluate[[]string](t, ctx, `[...document.querySelectorAll("#flame .found")].map(e => e.frame.n)`)
	if len(found) == 0 {
		t.Error("nothing is found")
	}
	for _, name := range found {
		if name != "try_to_wake_up" {
			t.Errorf("%s is found too", name)
		}
	}
	// 9150 + 4310 + 540 ns of 104.2 µs.
	if state := evaluate[string](t, ctx, `document.getElementById("state").textContent`); !strings.Contains(state, "found 14.0 µs, 13.4 %") {
		t.Errorf("the state reads %q", state)
	}
	run(t, ctx, chromedp.KeyEvent(kb.Escape))
	if n := evaluate[int](t, ctx, `document.querySelectorAll("#flame .found, .searching").length`); n != 0 {
		t.Errorf("%d marks stay after the search", n)
	}
}

// checkWidths looks for parts that stick out on a narrow screen.
func checkWidths(t *testing.T, ctx context.Context) {
	t.Helper()
	for _, width := range []int64{400, 768, 1280} {
		run(t, ctx, chromedp.EmulateViewport(width, 900))
		if got := evaluate[int64](t, ctx, `document.documentElement.scrollWidth`); got > width {
			wide := evaluate[[]string](t, ctx, fmt.Sprintf(`[...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > %d).map(e => e.tagName + "." + e.getAttribute("class")).slice(0, 8)`, width+1))
			t.Errorf("at %d pixels the page is %d wide: %v", width, got, wide)
		}
	}
}

// hover moves the pointer over a frame until its tip shows. A scroll that is
// still under way hides the tip again, so one move may not do.
func hover(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	for i := range 40 {
		at := evaluate[[]float64](t, ctx, fmt.Sprintf(`(r => [r.x + 30, r.y + 8])(`+frameNamed+`.getBoundingClientRect())`, name))
		run(t, ctx, chromedp.MouseEvent(chromedp.MouseMoved, at[0]+float64(i%2), at[1]), chromedp.Sleep(50*time.Millisecond))
		if evaluate[bool](t, ctx, fmt.Sprintf(`!document.getElementById("tip").hidden && document.querySelector("#tip .name").textContent === %q`, name)) {
			return
		}
	}
	t.Errorf("%s shows no tip under the pointer", name)
}

// closeUp shows a zoomed frame with its tip, and a search.
func closeUp(t *testing.T, ctx context.Context, dir, scheme string) {
	t.Helper()
	run(t, ctx, chromedp.EmulateViewport(1280, 900), chromedp.SendKeys("#search", "queue"),
		chromedp.Evaluate[chromedp.Void](fmt.Sprintf(frameNamed+`.click()`, "load/kernel")),
		chromedp.ScrollIntoView("#flame"))
	hover(t, ctx, "__queue_work")
	picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, scheme+"-zoom.png"), picture, 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, ctx, chromedp.SendKeys("#search", kb.Escape), chromedp.Click("#reset"))
}

// screenshots keeps pictures for people to look at.
func screenshots(t *testing.T, ctx context.Context) {
	t.Helper()
	dir := os.Getenv(screenshotsEnv)
	if dir == "" {
		dir = t.TempDir()
	}
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int64{1280, 400} {
			for _, view := range []string{"mirror", "difference"} {
				if view == "difference" && width == 400 && scheme == "dark" {
					continue
				}
				call(t, ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
					Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
				})
				run(t, ctx, chromedp.EmulateViewport(width, 900), chromedp.Click(`[data-view="`+view+`"]`))
				picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
				if err != nil {
					t.Fatal(err)
				}
				if len(picture) < 20_000 {
					t.Errorf("the picture of %s at %d has only %d bytes", scheme, width, len(picture))
				}
				name := filepath.Join(dir, fmt.Sprintf("%s-%d-%s.png", scheme, width, view))
				if err := os.WriteFile(name, picture, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		closeUp(t, ctx, dir, scheme)
	}
}
