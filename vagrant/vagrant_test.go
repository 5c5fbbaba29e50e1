package vagrant

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m, testkit.Mounts("coreplica-lab")) }

// run runs a command with additions to the environment and returns its exit code
// and all that it said.
func run(t *testing.T, env []string, name string, args ...string) (code int, said string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// validate lets vagrant look at the Vagrantfile of a folder, with a home of its
// own.
func validate(t *testing.T, folder string, env ...string) (code int, said string) {
	t.Helper()
	testkit.Need(t, testkit.Vagrant)
	home := t.TempDir()
	env = append(env, "HOME="+home, "VAGRANT_HOME="+filepath.Join(home, "vagrant"), "VAGRANT_DOTFILE_PATH="+filepath.Join(home, "machines"),
		"VAGRANT_CWD="+folder, "VAGRANT_CHECKPOINT_DISABLE=1", "VAGRANT_NO_COLOR=1", "COREPLICA_LAB_STATE="+home)
	return run(t, env, "vagrant", "validate")
}

func TestVagrantfileIsValid(t *testing.T) {
	for _, nodes := range []string{"1", "3", "16"} {
		if code, said := validate(t, ".", "COREPLICA_LAB_NODES="+nodes); code != 0 {
			t.Errorf("%s nodes: exit %d: %s", nodes, code, said)
		}
	}
}

// Without this, a vagrant that takes everything would pass the test above.
func TestABrokenVagrantfileIsNot(t *testing.T) {
	text, err := os.ReadFile("Vagrantfile")
	if err != nil {
		t.Fatal(err)
	}
	for good, bad := range map[string]string{
		`cpus: "0-1"`:      `cpus: "0,1"`,
		`"provision/."`:    `"no-such-folder/."`,
		`lv.driver =`:      `lv.no_such_setting =`,
		`lv.cpus = 4`:      `lv.cpus = 3`,
		`"shell",`:         `"no-such-provisioner",`,
		`node.vm.network `: `node.vm.no_such_thing `,
	} {
		if !bytes.Contains(text, []byte(good)) {
			t.Errorf("the Vagrantfile does not say %s any more", good)
			continue
		}
		folder := t.TempDir()
		if err := os.CopyFS(filepath.Join(folder, "provision"), os.DirFS("provision")); err != nil {
			t.Fatal(err)
		}
		broken := bytes.Replace(text, []byte(good), []byte(bad), 1)
		if err := os.WriteFile(filepath.Join(folder, "Vagrantfile"), broken, 0o600); err != nil {
			t.Fatal(err)
		}
		if code, said := validate(t, folder); code == 0 {
			t.Errorf("vagrant takes %s: %s", bad, said)
		}
	}
}

func TestASettingThatMakesNoSense(t *testing.T) {
	for _, setting := range []string{"COREPLICA_LAB_NODES=two", "COREPLICA_LAB_NODES=0", "COREPLICA_LAB_NODES=17", "COREPLICA_LAB_MEMORY_MIB=1"} {
		code, said := validate(t, ".", setting)
		if code == 0 || !strings.Contains(said, "lab: "+setting+" is no whole number from") || strings.Count(said, "\n") != 1 {
			t.Errorf("%s: exit %d: %s", setting, code, said)
		}
	}
}

func scripts(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob("*.sh")
	if err != nil || len(found) == 0 {
		t.Fatalf("found %v: %v", found, err)
	}
	return append(found, "provision/provision.sh")
}

func TestScriptsAreSound(t *testing.T) {
	for _, script := range scripts(t) {
		shell := "bash"
		if strings.HasPrefix(script, "provision/") {
			shell = "sh" // It runs where no bash is.
		}
		if code, said := run(t, nil, shell, "-n", script); code != 0 {
			t.Errorf("%s: %s", script, said)
		}
	}
}

func TestShellcheckFindsNothing(t *testing.T) {
	testkit.Need(t, testkit.ShellLint)
	if code, said := run(t, nil, "shellcheck", append([]string{"-x", "-P", ".."}, scripts(t)...)...); code != 0 {
		t.Error(said)
	}
	bad := filepath.Join(t.TempDir(), "bad.sh")
	if err := os.WriteFile(bad, []byte("#!/bin/sh\nrm $1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _ := run(t, nil, "shellcheck", bad); code == 0 {
		t.Error("shellcheck finds nothing in a script that has a fault")
	}
}

// pathWithout is a PATH on which one command is not.
func pathWithout(t *testing.T, missing string) string {
	t.Helper()
	folder := t.TempDir()
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // Not each folder of a PATH is there.
		}
		for _, entry := range entries {
			if entry.Name() != missing {
				// The first one counts, as it does on a PATH.
				_ = os.Symlink(filepath.Join(dir, entry.Name()), filepath.Join(folder, entry.Name()))
			}
		}
	}
	return "PATH=" + folder
}

// wantLine checks that a command failed with one line that ends in the fix.
func wantLine(t *testing.T, code int, said string, parts ...string) {
	t.Helper()
	if code != 1 || strings.Count(said, "\n") != 1 {
		t.Errorf("exit %d and %q, want 1 and one line", code, said)
	}
	for _, part := range parts {
		if !strings.Contains(said, part) {
			t.Errorf("%q does not say %q", said, part)
		}
	}
}

func TestAMissingProgramIsNamed(t *testing.T) {
	testkit.Need(t, testkit.Vagrant)
	state := filepath.Join(t.TempDir(), "state")
	for command, pack := range map[string]string{"vagrant": "vagrant", "qemu-system-x86_64": "qemu-system-x86"} {
		code, said := run(t, []string{pathWithout(t, command), "COREPLICA_LAB_STATE=" + state}, "./lab.sh", "up")
		wantLine(t, code, said, "lab: there is no "+command, "apt-get install "+pack)
		if _, err := os.Stat(state); err == nil {
			t.Errorf("without %s a folder was made all the same", command)
		}
	}
}

func TestAFullDiskIsNamed(t *testing.T) {
	testkit.Need(t, testkit.Root, testkit.Vagrant)
	if code, said := run(t, nil, "sh", "-c", "command -v virsh qemu-system-x86_64 qemu-img"); code != 0 {
		testkit.Skip(t, "lab", "scripts/setup lab was not run: only "+said)
	}
	disk := t.TempDir()
	if err := unix.Mount("coreplica-lab-test", disk, "tmpfs", 0, "size=16m"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	}()
	code, said := run(t, []string{"COREPLICA_LAB_STATE=" + disk + "/state"}, "./lab.sh", "up")
	wantLine(t, code, said, "has 16 MiB free", "needs 3072 MiB", "COREPLICA_LAB_STATE")
	if entries, err := os.ReadDir(disk); err != nil || len(entries) != 0 {
		t.Errorf("left on the disk: %v %v", entries, err)
	}
}

func TestDownWithoutALab(t *testing.T) {
	state := filepath.Join(t.TempDir(), "a", "b")
	code, said := run(t, []string{"COREPLICA_LAB_STATE=" + state}, "./lab.sh", "down")
	if code != 0 || said != "lab: there is no lab\n" {
		t.Errorf("exit %d: %s", code, said)
	}
	if _, err := os.Stat(filepath.Dir(state)); err == nil {
		t.Error("a folder was made")
	}
}

// fill makes files in a folder.
func fill(t *testing.T, folder string, files ...string) {
	t.Helper()
	for _, name := range files {
		name = filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// names lists the files in a folder and below.
func names(t *testing.T, folder string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(name string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			found = append(found, strings.TrimPrefix(name, folder+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// A killed lab leaves files. Down removes those, and what else lies there stays.
func TestDownRemovesOnlyItsOwn(t *testing.T) {
	folder := t.TempDir()
	state := filepath.Join(folder, "cache", "vagrant")
	fill(t, folder, "cache/vagrant/box/key", "cache/vagrant/box.partial/root/bin/sh", "cache/vagrant/run/machines/x", "cache/vagrant/lock",
		"cache/vagrant/letter", "cache/other")
	if err := os.WriteFile(filepath.Join(state, "made"), []byte(filepath.Join(folder, "cache")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	down := func() {
		t.Helper()
		if code, said := run(t, []string{"COREPLICA_LAB_STATE=" + state}, "./lab.sh", "down"); code != 0 {
			t.Errorf("exit %d: %s", code, said)
		}
	}
	down()
	if diff := cmp.Diff([]string{"cache/other", "cache/vagrant/letter"}, names(t, folder)); diff != "" {
		t.Errorf("what stays (-want +got):\n%s", diff)
	}
}

// A folder that the lab made goes with it, and the one that was there stays.
func TestDownRemovesTheFoldersItMade(t *testing.T) {
	folder := t.TempDir()
	state := filepath.Join(folder, "cache", "coreplica", "vagrant")
	fill(t, state, "box/key", "lock")
	if err := os.WriteFile(filepath.Join(state, "made"), []byte(filepath.Join(folder, "cache")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, said := run(t, []string{"COREPLICA_LAB_STATE=" + state}, "./lab.sh", "down"); code != 0 {
		t.Errorf("exit %d: %s", code, said)
	}
	if entries, err := os.ReadDir(folder); err != nil || len(entries) != 0 {
		t.Errorf("left: %v %v", entries, err)
	}
}

// holder takes the lab's lock as a command does, and sleeps.
const holder = `exec 9>>"$1"; flock 9; echo $$ >"$1"; echo ready; exec sleep 60`

func TestDownStopsWhoWorksOnTheLab(t *testing.T) {
	state := t.TempDir()
	cmd := exec.Command("bash", "-c", holder, "holder", filepath.Join(state, "lock"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	go func() { ended <- cmd.Wait() }()
	if code, said := run(t, []string{"COREPLICA_LAB_STATE=" + state}, "./lab.sh", "down"); code != 0 || !strings.Contains(said, "stopping process") {
		t.Errorf("exit %d: %s", code, said)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("it still works")
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		<-ended
	}
}

// A number in the lock may be somebody else's by now. Who does not hold the lock
// is not touched.
func TestDownSparesWhoDoesNotHoldTheLock(t *testing.T) {
	state := t.TempDir()
	lock := filepath.Join(state, "lock")
	bystander := exec.Command("sleep", "60")
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := bystander.Process.Kill(); err != nil {
			t.Errorf("the bystander is gone: %v", err)
		}
		_ = bystander.Wait() // It was killed, so it has an error to tell.
	}()
	f, err := os.Create(lock)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(lock, []byte(strconv.Itoa(bystander.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	code, said := run(t, []string{"COREPLICA_LAB_STATE=" + state}, "./lab.sh", "down")
	wantLine(t, code, said, "something holds "+lock)
}
