package stage

import (
	"errors"
	"strings"
	"testing"
)

func TestTablesParse(t *testing.T) {
	for kind := range layers {
		table, err := For(kind)
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		if len(table.Rules()) < 100 {
			t.Errorf("%s has %d rules", kind, len(table.Rules()))
		}
	}
	if _, err := For("raid7"); err == nil {
		t.Error("an unknown kind has rules")
	}
}

func TestClassify(t *testing.T) {
	tests := []struct {
		name, kind, context, stack string
		want                       Stage
	}{
		{"a helper belongs to its caller", "btrfs-raid1", "load/kernel", "kmem_cache_alloc btrfs_alloc_ordered_extent btrfs_file_write_iter vfs_write", Bookkeeping},
		{"a hash of data", "btrfs-raid1", "load/kernel", "crc32c_arch crc32c btrfs_csum_one_bio btrfs_submit_bbio", DataChecksum},
		{"the same hash of metadata", "btrfs-raid1", "load/kernel", "crc32c_arch crc32c csum_tree_block btree_csum_one_bio btrfs_submit_bbio", MetadataChecksum},
		{"a copy of the load", "btrfs-raid1", "load/kernel", "rep_movs_alternative copy_folio_from_iter_atomic btrfs_buffered_write", Copy},
		{"a copy of the loop driver", "btrfs-raid1", "worker/loop_workfn", "rep_movs_alternative copy_folio_from_iter_atomic generic_perform_write shmem_file_write_iter lo_rw_aio loop_process_work process_one_work", Substrate},
		{"an interrupt in the loop driver", "btrfs-raid1", "softirq/BLOCK", "bio_endio blk_update_request blk_done_softirq handle_softirqs irq_exit_rcu sysvec_call_function_single asm_sysvec_call_function_single lo_rw_aio loop_process_work", Completion},
		{"a lock in the block layer", "ext4", "load/kernel", "_raw_spin_lock blk_mq_submit_bio submit_bio", Locking},
		{"an unlock is no lock", "ext4", "load/kernel", "_raw_spin_unlock_irqrestore blk_mq_submit_bio submit_bio", Enqueue},
		{"compilers' suffixes", "btrfs-single", "load/kernel", "btrfs_csum_one_bio.isra.0", DataChecksum},
		{"user mode has no stack", "ext4", "load/user", "", User},
		{"nothing known", "ext4", "load/kernel", "frobnicate", Other},
		{"nothing known, in a vector", "ext4", "softirq/BLOCK", "frobnicate", Completion},
		{"io_uring", "uring", "load/kernel", "io_prep_rw io_submit_sqes __do_sys_io_uring_enter", SyscallEntry},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table, err := For(tt.kind)
			if err != nil {
				t.Fatal(err)
			}
			if got := table.Classify(strings.Fields(tt.stack), tt.context); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

func TestCharge(t *testing.T) {
	table, err := For("btrfs-raid1")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		got, want Charge
		name      string
	}{
		{table.Worker("loop_workfn"), Charge{Charged: true, Substrate: true}, "loop"},
		{table.Worker("btrfs_work_helper"), Charge{Charged: true}, "btrfs"},
		{table.Worker("wb_workfn"), Charge{Charged: true, Shared: true}, "writeback"},
		{table.Worker("vmstat_update"), Charge{}, "vmstat"},
		{table.KThread("ksoftirqd"), Charge{Charged: true}, "ksoftirqd"},
		{table.KThread("btrfs-transaction"), Charge{Charged: true}, "transaction"},
		{table.KThread("jbd2"), Charge{}, "another file system's journal"},
		{table.KThread("rcu_preempt"), Charge{}, "rcu"},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, tt.got, tt.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{
		"stage copy submit_bio\n",             // no colon
		"stage teleport: x\n",                 // no such stage
		"verb: x\n",                           // no such kind
		"work lent: x\n",                      // no such charge
		"interrupt now: x\n",                  // no argument
		" goes on\n",                          // with nothing
		"stage copy: a*b\n",                   // a star inside
		"stage copy: *\n",                     // everything
		"stage copy: x\nstage enqueue: x\n",   // two meanings
		"stage copy: x\nwhole substrate: x\n", // two meanings
		"work: x\nwork shared: x\n",           // two meanings
	} {
		if _, err := Parse(strings.NewReader(text)); !errors.Is(err, ErrRule) || !strings.Contains(err.Error(), "line") {
			t.Errorf("%q: error %v, want ErrRule with its line", text, err)
		}
	}
}

func TestSmearedAndProbe(t *testing.T) {
	if !Smeared([]string{"_raw_spin_unlock_irqrestore", "x"}) || Smeared([]string{"x", "_raw_spin_unlock_irqrestore"}) || Smeared(nil) {
		t.Error("smeared is about the leaf")
	}
	if !IsProbe([]string{"x", "bpf_prog_1234_ledger_sched_switch", "y"}) || IsProbe([]string{"submit_bio"}) {
		t.Error("a probe's samples are told by its frames")
	}
}

// Whatever the rules and the stack, nothing panics, and the same stack always
// has the same stage.
func FuzzParse(f *testing.F) {
	f.Add("stage copy: a b*\nwhole substrate: *c\ninterrupt: d\nwork shared: e\n", "a b.isra.0 c", "load/kernel")
	f.Add("stage copy: a*\nstage enqueue: *a\n", "aa", "x")
	f.Fuzz(func(t *testing.T, rules, stack, context string) {
		a, err := Parse(strings.NewReader(rules))
		if err != nil {
			return
		}
		b, err := Parse(strings.NewReader(rules))
		if err != nil {
			t.Fatal(err)
		}
		frames := strings.Fields(stack)
		if one, two := a.Classify(frames, context), b.Classify(frames, context); one != two {
			t.Errorf("%s and %s", one, two)
		}
		_, _, _, _ = a.Worker(stack), a.KThread(stack), Smeared(frames), IsProbe(frames)
	})
}
