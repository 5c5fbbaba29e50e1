package proc

import (
	"bytes"
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Places in /proc/PID/task/TID/stat behind the name, see proc_pid_stat(5).
const (
	statFlags    = 6
	statExitCode = 49
	// exiting is PF_EXITING: the thread is in do_exit and sees user space no
	// more. Nothing takes it back.
	exiting = 0x4
)

// over reports whether a process was killed and none of its threads will perform
// one more instruction of its own. From then on it is as good as dead to all who
// share memory with it, while the kernel may yet need milliseconds to take its memory
// apart, and longer to tell.
//
// A thread that has let go of its memory has no program (exit_mm in kernel/exit.c,
// proc_exe_link in fs/proc/base.c). That says the same as its flags, and to ask for
// it holds no memory: who holds it last takes it apart.
//
// A process that is being killed gets no more threads (copy_process in
// kernel/fork.c), so that is looked at first; then no list of its threads is too
// short but by an end in the midst of it, which their number tells. The number pid
// must be the caller's to reap: if it is another process's by now, this one is gone.
func over(pid int) bool {
	task := "/proc/" + strconv.Itoa(pid) + "/task"
	if !letGo(task, strconv.Itoa(pid)) {
		return false
	}
	if flags, code, err := threadStat(task, strconv.Itoa(pid)); err != nil || flags&exiting == 0 || code != int(unix.SIGKILL) {
		return false
	}
	dir, err := os.Open(task)
	if err != nil {
		return false
	}
	defer dir.Close()
	var stat unix.Stat_t
	if unix.Fstat(int(dir.Fd()), &stat) != nil {
		return false
	}
	threads, err := dir.Readdirnames(-1)
	if err != nil || len(threads) < int(stat.Nlink)-2 {
		return false
	}
	for _, tid := range threads {
		if !letGo(task, tid) {
			return false
		}
	}
	return true
}

// letGo reports whether a thread has no memory any more, or has gone altogether.
func letGo(task, tid string) bool {
	var program [1]byte
	_, err := unix.Readlink(task+"/"+tid+"/exe", program[:])
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH)
}

// threadStat returns a thread's flags and exit code. The kernel holds the thread's
// memory, if it has any, while it writes them.
func threadStat(task, tid string) (flags, code int, err error) {
	fd, err := unix.Open(task+"/"+tid+"/stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, 0, err
	}
	defer unix.Close(fd)
	var line [1024]byte
	n, err := unix.Read(fd, line[:])
	if err != nil {
		return 0, 0, err
	}
	return parseStat(line[:n])
}

var errStat = errors.New("the line of stat has not the fields that it should")

// parseStat reads a line of stat. The name in it may hold anything.
func parseStat(line []byte) (flags, code int, err error) {
	fields := bytes.Fields(line[bytes.LastIndexByte(line, ')')+1:])
	if len(fields) <= statExitCode {
		return 0, 0, errStat
	}
	if flags, err = strconv.Atoi(string(fields[statFlags])); err != nil {
		return 0, 0, errStat
	}
	if code, err = strconv.Atoi(string(fields[statExitCode])); err != nil {
		return 0, 0, errStat
	}
	return flags, code, nil
}
