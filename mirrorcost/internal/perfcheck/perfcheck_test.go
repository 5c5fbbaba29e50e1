package perfcheck

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// As `perf script -F comm,pid,tid,cpu,time,ip,sym` prints it: a worker of the
// loop driver, a load thread that a softirq interrupted, one in user mode, and
// one on its way out of a system call.
const script = `kworker/u8:4-ev  1702/1702  [001] 14500.599207: 
	ffffffff82261568 __pi_memcpy
	ffffffff815ce537 shmem_file_read_iter
	ffffffff81dbd6b9 lo_rw_aio.isra.0
	ffffffff81dbe50d loop_process_work
	ffffffff8138bf9c process_one_work

my load 0  1861/1863  [000] 14500.718125: 
	ffffffff8226e638 _raw_spin_unlock_irqrestore
	ffffffff81a2b17a blk_done_softirq
	ffffffff8138bf9d handle_softirqs+0x10
	ffffffff8138bf9e asm_sysvec_call_function_single
	ffffffff8138bf9f btrfs_csum_one_bio
	    7f0012345678 [unknown]

load-0  1861/1863  [000] 14500.718126: 
	    7f0012345678 main.spin

load-0  1861/1863  [000] 14500.718127: 
	ffffffff8138bfa0 syscall_exit_to_user_mode
	ffffffff8138bfa1 do_syscall_64
	ffffffff8138bfa2 entry_SYSCALL_64_after_hwframe
	    7f0012345678 [unknown]
`

func TestParse(t *testing.T) {
	got, err := Parse(strings.NewReader(script))
	if err != nil {
		t.Fatal(err)
	}
	want := []Sample{
		{Comm: "kworker/u8:4-ev", PID: 1702, Stack: []string{"__pi_memcpy", "shmem_file_read_iter", "lo_rw_aio", "loop_process_work", "process_one_work"}},
		{Comm: "my load 0", PID: 1861, Stack: []string{"_raw_spin_unlock_irqrestore", "blk_done_softirq", "handle_softirqs", "asm_sysvec_call_function_single", "btrfs_csum_one_bio"}},
		{Comm: "load-0", PID: 1861, User: true},
		{Comm: "load-0", PID: 1861, Stack: []string{"syscall_exit_to_user_mode", "do_syscall_64", "entry_SYSCALL_64_after_hwframe"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("samples (-want +got):\n%s", diff)
	}
	// What runs below the loop driver is its, what an interrupt hit is not
	// the interrupt's, and neither user mode nor its border is a stage.
	if diff := cmp.Diff(Counts{"substrate": 1, "completion": 1}, Shares(got, 1861)); diff != "" {
		t.Errorf("stages (-want +got):\n%s", diff)
	}
	if n := Shares(got, 1).Total(); n != 2 {
		t.Errorf("%d samples are charged where the load is another process, want the worker's and the softirq's", n)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{"\tffffffff82261568 memcpy\n", "kworker 1702\n", "kworker x/y [001] 1.2:\n", "kworker 1/1 [001] 1.2:\n\tnothing\n"} {
		if _, err := Parse(strings.NewReader(text)); !errors.Is(err, ErrFormat) {
			t.Errorf("%q: error %v", text, err)
		}
	}
}

// A comparison of equal shares holds, and one whose rules put two stages in each
// other's place does not: the test of the two instruments can fail.
func TestCompareFindsAWrongRule(t *testing.T) {
	ours := Counts{"scheduling": 4100, "bookkeeping": 3300, "substrate": 1000, "locking": 550, "copy": 50}
	theirs := Counts{"scheduling": 4050, "bookkeeping": 3350, "substrate": 990, "locking": 560, "copy": 90}
	mutants := map[string]func(Counts){
		"none":                         func(Counts) {},
		"two stages swapped":           func(c Counts) { c["scheduling"], c["bookkeeping"] = c["bookkeeping"], c["scheduling"] },
		"locking counts as its caller": func(c Counts) { c["bookkeeping"] += c["locking"]; delete(c, "locking") },
		"a lost stage":                 func(c Counts) { c["other"] += c["substrate"]; delete(c, "substrate") },
	}
	for name, mutate := range mutants {
		mutant := Counts{}
		for stage, n := range ours {
			mutant[stage] = n
		}
		mutate(mutant)
		found := false
		for _, row := range Compare(mutant, theirs) {
			found = found || row.Disagree()
		}
		if found != (name != "none") {
			t.Errorf("%s: a disagreement was found: %t", name, found)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(script)
	f.Add("a  1/1 [0] 1:\n\tffffffffffffffff x\n")
	f.Fuzz(func(t *testing.T, text string) {
		samples, err := Parse(strings.NewReader(text))
		if err != nil {
			return
		}
		if n := Shares(samples, 1).Total(); n > uint64(len(samples)) {
			t.Errorf("%d samples became %d", len(samples), n)
		}
	})
}
