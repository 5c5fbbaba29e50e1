package perfcheck

import (
	"regexp"
	"slices"
	"strings"
)

// family is a set of functions that do the same kind of work.
type family struct {
	stage string
	names *regexp.Regexp
}

func of(stage string, names ...string) family {
	return family{stage, regexp.MustCompile("^(?:" + strings.Join(names, "|") + ")$")}
}

// below owns whatever runs below one of its functions: the loop driver reads
// and writes its backing file through a whole file system.
var below = of("substrate", `loop_.*`, `lo_(rw|req|complete|write|read).*`, `virtblk_.*|virtqueue_.*|vring_.*`)

// families, the special before the general. A function that none of them knows,
// such as the switching on of interrupts or a copy of memory, counts as its
// caller.
var families = []family{
	of("data checksum", `btrfs_csum_one_bio.*|csum_one_bio.*`),
	of("metadata checksum", `csum_tree_block.*|btree_csum_one_bio|btrfs_csum_super.*|csum_one_extent_buffer`),

	of("locking", `_raw_(spin|read|write)_lock.*|.*queued_(spin|read|write).*slowpath.*`,
		`mutex_(lock|unlock|trylock).*|__mutex_.*|osq_.*|rwsem_.*|(down|up)_(read|write).*|percpu_(down|up)_.*`,
		`__?(down|up)_(read|write).*|folio_lock.*|__folio_lock.*|folio_wait_bit.*`,
		`btrfs_(try_)?tree_(read_)?(un)?lock.*|btrfs_(read_)?lock_root_node|btrfs_unlock_up_safe|btrfs_inode_(un)?lock|btrfs_drew_.*`),

	of("completion", `.*_end_io|.*_end_io_work|bio_(endio|put|free)|end_bbio_.*|end_bio_.*|btrfs_bio_end_io|btrfs_finish_.*ordered.*`,
		`btrfs_mark_ordered_.*|btrfs_(put|remove)_ordered_extent|btrfs_dec_test_ordered.*|finish_ordered_fn|can_finish_ordered_extent|btrfs_work_helper`,
		`btrfs_lookup_(first_)?ordered.*|btrfs_bio_counter_(sub|dec)|btrfs_log_dev_io_error|btrfs_cleanup_bio`,
		`blk_(done_softirq|complete_reqs|update_request|account_io_done|mq_complete.*|mq_end_request.*|mq_free_.*|mq_finish.*|mq_put_.*)`,
		`__blk_mq_(end_request|free_request|put).*|blk_stat_.*|folio_end_writeback.*|iomap_dio_complete.*|rq_qos_done.*`, `common_interrupt|__?handle_irq.*`),

	of("enqueue", `submit_bio.*|__submit_bio.*|blk_mq_(submit|get|alloc|run|sched|dispatch|flush|insert|try_issue|requeue|start|attempt|rq_ctx|delay|plug|request_issue).*`,
		`__blk_mq_(alloc|get|sched|do|run|issue|delay|tag|requeue).*`,
		`blk_(account_io_start|insert_flush|flush.*|kick_flush|add_rq_to_plug|attempt.*|start_plug.*|finish_plug|throtl.*|cgroup.*|rq_.*|try_enter.*)|__blk_flush_plug|__blk_rq.*`,
		`bio_(alloc|init|add|clone|split|attempt|associate|set|map|poll|integrity).*|__bio_(add|split|queue).*|elv_.*|dd_.*|blkcg_.*|mempool_alloc.*|bvec_.*`,
		`btrfs_(submit|map_block|bio_alloc|bio_init|split_bio|get_chunk_map|find_chunk_map|chunk_map|alloc_chunk_map|bio_counter_inc|queue_work).*`,
		`__btrfs_(map_block|submit|queue_work).*|submit_(one|extent)_.*|set_io_stripe|map_blocks_.*|alloc_btrfs_io_context|write_one_eb|alloc_new_bio|set_bio_.*`),

	of("syscall entry", `do_syscall_64|entry_SYSCALL.*|x64_sys_call|syscall_.*|__x64_sys_.*|ksys_.*|vfs_(write|fsync).*|exit_to_user.*|new_sync_write`,
		`rw_verify_area|fdget.*|fput.*|__f(get|dget|put).*|file_(update|remove).*|mnt_get_write.*|do_fsync|do_pwrite.*|security_.*|fsnotify.*|__fsnotify.*|kiocb_.*|generic_write_check.*`,
		`btrfs_file_write_iter|btrfs_do_write_iter|iov_iter_init|import_.*|sb_start_write`),

	of("copy", `_?copy_(from|page_from|folio_from).*|rep_movs.*|fault_in_.*|btrfs_copy_from_user|memcpy_from_iter`,
		`iov_iter_(get|extract|copy).*|gup_fast.*|pin_user.*|internal_get_user_pages.*|bio_iov_iter.*|unpin_user.*|_?_?bio_release_pages`),

	of("bookkeeping", `_?_?btrfs_.*|_?_?extent_.*|_?_?(set|clear)_(extent|state).*|(insert|merge|split|alloc|free)_(state|extent).*|(un)?lock_extent.*`,
		`cow_file_range.*|run_delalloc.*|writepage_delalloc|find_.*delalloc.*|insert_.*ordered.*|insert_reserved.*|(add|insert|run|select)_delayed.*|cleanup_ref_head|alloc_reserved_.*`,
		`_?_?reserve_.*|need_preemptive_reclaim|calc_available.*|can_overcommit|find_free_extent.*|.*_extent_(buffer|backref|mapping|map).*|(lookup|update|setup|remove)_inline.*`,
		`(start|join)_transaction|.*_transaction|transaction_kthread|read_block_for_search|search_.*|.*bin_search|leaf_space_used|push_.*|balance_level|tree_.*|setup_items.*|rb_.*`,
		`_?_?filemap_.*|_?_?folio_.*|xas_.*|_?_?xa_.*|writeback_.*|_?_?writeback_.*|do_writepages|wb_.*|balance_dirty.*|_?_?mark_inode.*|inode_.*|invalidate_.*|truncate_.*`,
		`prepare_(pages|one_folio)|lock_and_cleanup.*|get_extent_.*|can_nocow.*|nocow.*|count_max_extents|test_range_bit|count_range_bits|_?_?mod_(node|lruvec|memcg).*|lruvec_.*|mem_cgroup.*|lru_.*|release_.*|buffer_tree.*|flush_space|shrink_delalloc|iomap_.*|_?_?iomap_.*`,
		`find_lock.*|tag_pages.*|mapping_.*|sync_.*|noop_dirty.*|node_page_state.*|workingset.*|account_page.*|memcpy_extent.*|ulist_.*|qgroup_.*|link_block_group`),

	of("scheduling", `_?_?schedule.*|io_schedule.*|finish_task_switch.*|_?_?switch_.*|_?_?pick_.*|(en|de)queue_(task|entity|entities).*|put_prev.*|set_next.*|update_(curr|load|rq|se).*`,
		`try_to_(wake|block).*|wake_up_.*|_?_?wake_up.*|.*wake_function|complete.*|ttwu_.*|select_(task|idle).*|activate_task|resched_.*|sched_.*|_?_?flush_smp.*`,
		`(_?_?sysvec|asm_sysvec|smp_call|native_s|call_function|generic_smp).*|_?_?hrtimer.*|.*nanosleep.*|.*nsleep.*|.*timer.*|tick_.*|update_process_times|rcu_.*|note_gp.*|rebalance.*|load_balance|nohz_.*`,
		`worker_thread|process_one_work|process_scheduled_works|wq_.*|_?_?queue_(delayed_)?work.*|kick_pool|insert_work|mod_delayed.*|kthread.*|ret_from_fork.*|smpboot.*|run_ksoftirqd`,
		`.*irq_exit.*|irq_enter.*|handle_softirqs|_?_?do_softirq.*|_?_?local_bh.*|do_idle|cpu_startup_entry|cpuidle.*|prepare_to_wait.*|finish_wait|wait_for_.*|preempt_schedule.*|_?_?cond_resched`),
}

// boundary is where an interrupt came in: what it interrupted is not its own.
var boundary = regexp.MustCompile(`^(asm_sysvec_.*|asm_common_interrupt|el[01].*_irq.*)$`)

// probe functions only run because something measures.
var probe = regexp.MustCompile(`^(bpf_|__bpf_|perf_|__perf_|trace_call_bpf)`)

// Stage returns the stage of a kernel stack, leaf first.
func Stage(stack []string) string {
	for i, name := range stack {
		if boundary.MatchString(name) {
			stack = stack[:i+1]
			break
		}
	}
	for _, name := range stack {
		if below.names.MatchString(name) {
			return below.stage
		}
	}
	for _, name := range stack {
		for _, f := range families {
			if f.names.MatchString(name) {
				return f.stage
			}
		}
	}
	return "other"
}

// border is the way into and out of a system call, outside of the tracepoints by
// which the ledger tells user mode from the kernel.
var border = regexp.MustCompile(`^(entry_SYSCALL.*|do_syscall_64|x64_sys_call|syscall_(enter|exit|trace).*|exit_to_user.*|el0.*|do_el0.*|pvm_.*|__raw_callee_save_.*)$`)

// Border reports whether a stack, leaf first, is nothing but the way into a
// system call or out of it. The ledger books most of those to user mode.
func Border(stack []string) bool {
	return !slices.ContainsFunc(stack, func(name string) bool { return !border.MatchString(name) })
}

// charged reports whether a sample is of the writes: kernel mode of the load, of
// kernel workers and of the threads that serve block devices, and softirqs
// wherever they came.
func (s *Sample) charged(load int) bool {
	if s.User || len(s.Stack) == 0 {
		return false
	}
	for _, name := range s.Stack {
		if probe.MatchString(name) {
			return false
		}
	}
	for _, name := range s.Stack {
		if boundary.MatchString(name) {
			break
		}
		if name == "handle_softirqs" || name == "__do_softirq" {
			return true
		}
	}
	for _, prefix := range []string{"kworker/", "ksoftirqd/", "btrfs-", "jbd2/"} {
		if strings.HasPrefix(s.Comm, prefix) {
			return true
		}
	}
	return s.PID == load && !Border(s.Stack)
}
