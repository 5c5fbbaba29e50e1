package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker; see the Makefile.
var version string

// versionInfo is what `coreplica version -o json` prints.
type versionInfo struct {
	Schema   string `json:"schema"`
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`
	// Modules has the versions of the libraries whose behaviour shows in
	// results.
	Modules map[string]string `json:"modules"`
}

// currentVersion asks the linker first, then what Go recorded in the binary:
// `go install module@version` sets no linker flag.
func currentVersion() versionInfo {
	info := versionInfo{
		Schema: "coreplica.version/1", Version: version,
		Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH,
		Modules: map[string]string{},
	}
	build, ok := debug.ReadBuildInfo()
	if ok {
		if info.Version == "" {
			info.Version = build.Main.Version
		}
		for _, setting := range build.Settings {
			if setting.Key == "vcs.revision" {
				info.Revision = setting.Value
			}
		}
		for _, dep := range build.Deps {
			switch dep.Path {
			case "github.com/cilium/ebpf", "github.com/google/pprof":
				info.Modules[dep.Path] = dep.Version
			}
		}
	}
	if info.Version == "" {
		info.Version = "unknown"
	}
	return info
}

func newVersionCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Long: `Print the version of coreplica, of Go, and of the libraries whose behaviour
shows in results. Quote it when you report a problem.`,
		Example: `  coreplica version
  coreplica version -o json | jq -r .version`,
	}
	output := outputFlag(cmd, "text", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		info := currentVersion()
		if output.value == "json" {
			return writeJSON(cmd.OutOrStdout(), info)
		}
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "coreplica %s (%s, %s/%s)\n", info.Version, info.Go, info.OS, info.Arch)
		return err
	}
	return cmd
}
