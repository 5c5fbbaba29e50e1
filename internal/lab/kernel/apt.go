package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	// MirrorEnv names the environment variable with Debian's mirror, for
	// machines that have one of their own.
	MirrorEnv     = "COREPLICA_DEBIAN_MIRROR"
	defaultMirror = "http://deb.debian.org"
	// keyring is what Debian signs its archives with; it is on every Debian.
	keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
	// aptTimeout bounds one call of apt: lists are some 10 MB, kernels 40.
	aptTimeout = 10 * time.Minute
)

// apt is apt-get on lists of its own.
type apt struct{ dir string }

// newApt writes the configuration for one suite. Only what names the sources and
// the state is set; how to reach the network stays the machine's own.
func newApt(dir string, s series) (*apt, error) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return nil, fmt.Errorf("%w; kernels come as Debian's packages: on another system give --kernel a folder that holds vmlinuz and lib/modules", err)
	}
	if _, err := os.Stat(keyring); err != nil {
		return nil, fmt.Errorf("the keys of Debian's archive are missing: %w; install debian-archive-keyring", err)
	}
	mirror := os.Getenv(MirrorEnv)
	if mirror == "" {
		mirror = defaultMirror
	}
	for _, sub := range []string{"etc/sources.d", "etc/preferences.d", "state/lists/partial", "cache/archives/partial", "packages"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	sources := fmt.Sprintf("deb [arch=amd64 signed-by=%s] %s/%s %s main\n", keyring, strings.TrimSuffix(mirror, "/"), s.archive, s.suite)
	if err := os.WriteFile(filepath.Join(dir, "etc/sources.list"), []byte(sources), 0o644); err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`Dir::Etc::sourcelist %q;
Dir::Etc::sourceparts %q;
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts %q;
Dir::State %q;
Dir::State::lists %q;
Dir::State::status "/dev/null";
Dir::Cache %q;
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
Acquire::Languages "none";
Acquire::Retries "3";
APT::Sandbox::User "";
`,
		filepath.Join(dir, "etc/sources.list"), filepath.Join(dir, "etc/sources.d"), filepath.Join(dir, "etc/preferences.d"),
		filepath.Join(dir, "state"), filepath.Join(dir, "state/lists"), filepath.Join(dir, "cache"))
	if err := os.WriteFile(filepath.Join(dir, "apt.conf"), []byte(config), 0o644); err != nil {
		return nil, err
	}
	return &apt{dir: dir}, nil
}

// run runs apt-get or apt-cache and returns what it printed.
func (a *apt) run(ctx context.Context, dir, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, aptTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "APT_CONFIG="+filepath.Join(a.dir, "apt.conf"), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, args[0], err, complaint(stderr.String()))
	}
	return stdout.String(), nil
}

// update renews the lists.
func (a *apt) update(ctx context.Context) error {
	if _, err := a.run(ctx, a.dir, "apt-get", "update", "-q", "--error-on=any"); err != nil {
		return fmt.Errorf("%w; %s names another mirror", err, MirrorEnv)
	}
	return nil
}

// names lists the packages with a prefix.
func (a *apt) names(ctx context.Context, prefix string) ([]string, error) {
	out, err := a.run(ctx, a.dir, "apt-cache", "pkgnames", prefix)
	return strings.Fields(out), err
}

// download fetches packages and returns the files.
func (a *apt) download(ctx context.Context, packages ...string) ([]string, error) {
	into, err := os.MkdirTemp(filepath.Join(a.dir, "packages"), "get-")
	if err != nil {
		return nil, err
	}
	if _, err := a.run(ctx, into, "apt-get", append([]string{"download", "-q"}, packages...)...); err != nil {
		return nil, errors.Join(err, os.RemoveAll(into))
	}
	files, err := filepath.Glob(filepath.Join(into, "*.deb"))
	if err == nil && len(files) != len(packages) {
		err = fmt.Errorf("apt-get download: %d files for %d packages", len(files), len(packages))
	}
	return files, err
}

// complaint is the line of apt's that says what could not be had, or else the last.
func complaint(text string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, "Failed to fetch") {
			return strings.TrimSpace(line)
		}
	}
	return lastLine(text)
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
