package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
)

// openPinned takes programs and maps that bpftool loaded and pinned:
//
//	bpftool prog loadall OBJECT DIR/NAME pinmaps DIR/NAME-maps
//
// where NAME is ledger, vectors, blockio or stacks. The pins stay where they
// are; only the links are ours.
func openPinned(name, dir string, share map[string]*ebpf.Map) (*probe, error) {
	p := &probe{name: name, programs: map[string]*ebpf.Program{}, maps: map[string]*ebpf.Map{}}
	err := p.readPins(filepath.Join(dir, name), filepath.Join(dir, name+"-maps"))
	if err == nil {
		err = p.checkShared(share)
	}
	if err == nil {
		err = p.attach()
	}
	if err != nil {
		_ = p.Close()
		return nil, fmt.Errorf("open pinned probe %s: %w", name, err)
	}
	return p, nil
}

func (p *probe) readPins(programs, maps string) error {
	entries, err := os.ReadDir(programs)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; pin it with `bpftool prog loadall OBJECT %s pinmaps %s`", err, programs, maps)
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		prog, err := ebpf.LoadPinnedProgram(filepath.Join(programs, e.Name()), nil)
		if err != nil {
			return fmt.Errorf("load pinned program %s: %w", e.Name(), err)
		}
		p.programs[e.Name()] = prog
		if _, ok := tracepoints[e.Name()]; ok {
			p.form = formOf(prog)
		}
	}
	entries, err = os.ReadDir(maps)
	if err != nil {
		return err
	}
	for _, e := range entries {
		m, err := ebpf.LoadPinnedMap(filepath.Join(maps, e.Name()), nil)
		if err != nil {
			return fmt.Errorf("load pinned map %s: %w", e.Name(), err)
		}
		p.maps[e.Name()] = m
	}
	return nil
}

// checkShared refuses a probe that was pinned with maps of its own where it
// must use another probe's: it would count into the void.
func (p *probe) checkShared(share map[string]*ebpf.Map) error {
	for name, want := range share {
		id, err := mapID(want)
		if err != nil {
			return err
		}
		got, err := mapID(p.maps[name])
		if err != nil {
			return err
		}
		if got != id {
			return fmt.Errorf("map %s is not the ledger's; load it with `map name %s pinned DIR/ledger-maps/%s`", name, name, name)
		}
	}
	return nil
}

func mapID(m *ebpf.Map) (ebpf.MapID, error) {
	if m == nil {
		return 0, errors.New("a map is missing among the pins")
	}
	info, err := m.Info()
	if err != nil {
		return 0, fmt.Errorf("read map info: %w", err)
	}
	id, _ := info.ID()
	return id, nil
}

// need returns the named programs' and maps' absence as an error, so that a
// half-made pin directory is refused before anything runs.
func (p *probe) need(programs, maps []string) error {
	for _, n := range programs {
		if p.programs[n] == nil {
			return fmt.Errorf("probe %s has no program %s", p.name, n)
		}
	}
	for _, n := range maps {
		if p.maps[n] == nil {
			return fmt.Errorf("probe %s has no map %s", p.name, n)
		}
	}
	return nil
}
