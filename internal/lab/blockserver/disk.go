package blockserver

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/coreplica/coreplica/internal/lab/blockserver/writecache"
)

const (
	// chunkBytes is how much is taken from the cache or put into it at once:
	// enough for few system calls, little beside any cache.
	chunkBytes = 256 << 10
	// bulkBytes is from where zeros go past the cache. A file system that is made
	// trims its whole disk, which would push all else out of the cache. Being
	// durable early breaks no promise.
	bulkBytes = 8 << 20
)

// errPowerLost tells a connection that its disk was off meanwhile.
var errPowerLost = errors.New("the power was cut")

// disk is a file behind a write cache. Each method holds the lock from end to
// end: requests take effect one after the other.
type disk struct {
	size, sector int64

	mu    sync.Mutex
	file  *os.File
	cache *writecache.Cache
	// boots counts the power cuts. A connection from before a cut must not
	// write after it, so each says from which boot it is.
	boots uint64
}

func (d *disk) boot() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.boots
}

// lock takes the lock for a connection of a boot.
func (d *disk) lock(boot uint64) error {
	d.mu.Lock()
	if d.boots != boot {
		d.mu.Unlock()
		return errPowerLost
	}
	return nil
}

// read fills the buffer from an offset on.
func (d *disk) read(boot uint64, offset int64, buffer []byte) error {
	if err := d.lock(boot); err != nil {
		return err
	}
	defer d.mu.Unlock()
	first, last := offset/d.sector, (offset+int64(len(buffer))+d.sector-1)/d.sector
	if offset%d.sector == 0 && int64(len(buffer)) == (last-first)*d.sector {
		return d.readSectors(first, buffer)
	}
	whole := make([]byte, (last-first)*d.sector)
	if err := d.readSectors(first, whole); err != nil {
		return err
	}
	copy(buffer, whole[offset-first*d.sector:])
	return nil
}

func (d *disk) readSectors(first int64, buffer []byte) error {
	if _, err := d.file.ReadAt(buffer, first*d.sector); err != nil {
		return fmt.Errorf("read the image: %w", err)
	}
	d.cache.Read(first, buffer)
	return nil
}

// write writes data at an offset; with fua it is durable on return.
func (d *disk) write(boot uint64, offset int64, data []byte, fua bool) error {
	if err := d.lock(boot); err != nil {
		return err
	}
	defer d.mu.Unlock()
	return d.writeLocked(offset, data, fua)
}

func (d *disk) writeLocked(offset int64, data []byte, fua bool) error {
	for len(data) > 0 {
		// Up to the end of a sector, so that only first and last chunk are odd.
		n := min(int64(len(data)), d.chunk()-offset%d.sector)
		sectors, err := d.compose(offset, data[:n])
		if err != nil {
			return err
		}
		if !fua {
			err = d.put(sectors)
		} else if err = d.store(sectors); err == nil {
			d.cache.Stored(sectors)
		}
		if err != nil {
			return err
		}
		offset, data = offset+n, data[n:]
	}
	return nil
}

// chunk is a multiple of a sector, and less than a small cache holds.
func (d *disk) chunk() int64 {
	return min(chunkBytes, int64(d.cache.MaxSectors()/2)*d.sector)
}

// compose returns the sectors that data makes, with what surrounds it in the
// first and the last.
func (d *disk) compose(offset int64, data []byte) ([]writecache.Sector, error) {
	first, last := offset/d.sector, (offset+int64(len(data))+d.sector-1)/d.sector
	whole := data
	if offset%d.sector != 0 || int64(len(data))%d.sector != 0 {
		whole = make([]byte, (last-first)*d.sector)
		if err := d.readSectors(first, whole); err != nil {
			return nil, err
		}
		copy(whole[offset-first*d.sector:], data)
	}
	sectors := make([]writecache.Sector, 0, last-first)
	for number := first; number < last; number++ {
		sectors = append(sectors, writecache.Sector{Number: number, Data: whole[(number-first)*d.sector:][:d.sector]})
	}
	return sectors, nil
}

// put makes sectors volatile, after it has made room for them.
func (d *disk) put(sectors []writecache.Sector) error {
	if out := d.cache.Room(len(sectors)); out != nil {
		if err := d.store(out); err != nil {
			return err
		}
		d.cache.Stored(out)
	}
	for _, s := range sectors {
		d.cache.Write(s)
	}
	return nil
}

// trim makes the whole sectors of a range read as zeros. It is a hint: what is
// left over at the ends stays.
func (d *disk) trim(boot uint64, offset, n int64, fua bool) error {
	if err := d.lock(boot); err != nil {
		return err
	}
	defer d.mu.Unlock()
	first, last := (offset+d.sector-1)/d.sector, (offset+n)/d.sector
	if first >= last {
		return nil
	}
	return d.zeroSectors(first, last-first, fua, true)
}

// zero makes a range read as zeros; hole allows the file to have none of it.
func (d *disk) zero(boot uint64, offset, n int64, fua, hole bool) error {
	if err := d.lock(boot); err != nil {
		return err
	}
	defer d.mu.Unlock()
	first, last := (offset+d.sector-1)/d.sector, (offset+n)/d.sector
	if first >= last {
		return d.writeLocked(offset, make([]byte, n), fua) // Less than two sectors.
	}
	head, tail := first*d.sector-offset, offset+n-last*d.sector
	return errors.Join(
		d.writeLocked(offset, make([]byte, head), fua),
		d.zeroSectors(first, last-first, fua, hole),
		d.writeLocked(last*d.sector, make([]byte, tail), fua),
	)
}

func (d *disk) zeroSectors(first, n int64, fua, hole bool) error {
	if fua || n*d.sector >= bulkBytes {
		if err := d.erase(first*d.sector, n*d.sector, hole); err != nil {
			return err
		}
		d.cache.ForgetRange(first, n)
		return nil
	}
	var data []byte
	if !hole {
		data = make([]byte, d.sector)
	}
	step := d.chunk() / d.sector
	for ; n > 0; first, n = first+step, n-step {
		sectors := make([]writecache.Sector, min(step, n))
		for i := range sectors {
			sectors[i] = writecache.Sector{Number: first + int64(i), Data: data}
		}
		if err := d.put(sectors); err != nil {
			return err
		}
	}
	return nil
}

// flush makes durable all that was written before.
func (d *disk) flush(boot uint64) error {
	if err := d.lock(boot); err != nil {
		return err
	}
	defer d.mu.Unlock()
	return d.flushLocked()
}

func (d *disk) flushLocked() error {
	sectors := d.cache.Volatile()
	if err := d.store(sectors); err != nil {
		return err
	}
	d.cache.Stored(sectors)
	return nil
}

// powerCut ends a boot.
func (d *disk) powerCut() (writecache.Cut, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.boots++
	survivors, cut := d.cache.PowerCut()
	return cut, d.store(survivors)
}

// store writes sectors to the file, neighbours together.
func (d *disk) store(sectors []writecache.Sector) error {
	var run []byte
	for i := 0; i < len(sectors); {
		first, hole := sectors[i].Number, sectors[i].Data == nil
		j := i
		run = run[:0]
		for ; j < len(sectors) && sectors[j].Number == first+int64(j-i) && (sectors[j].Data == nil) == hole && len(run) < chunkBytes; j++ {
			run = append(run, sectors[j].Data...)
		}
		var err error
		if hole {
			err = d.erase(first*d.sector, int64(j-i)*d.sector, true)
		} else if _, err = d.file.WriteAt(run, first*d.sector); err != nil {
			err = fmt.Errorf("write the image: %w", err)
		}
		if err != nil {
			return err
		}
		i = j
	}
	return nil
}

// erase makes a range of the file read as zeros.
func (d *disk) erase(offset, n int64, hole bool) error {
	mode := uint32(unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_ZERO_RANGE)
	if hole {
		mode = unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_PUNCH_HOLE
	}
	err := unix.Fallocate(int(d.file.Fd()), mode, offset, n)
	if errors.Is(err, unix.EOPNOTSUPP) { // Not every file system can.
		zeros := make([]byte, min(n, chunkBytes))
		for err = nil; n > 0 && err == nil; {
			var wrote int
			wrote, err = d.file.WriteAt(zeros[:min(n, chunkBytes)], offset)
			offset, n = offset+int64(wrote), n-int64(wrote)
		}
	}
	if err != nil {
		return fmt.Errorf("erase in the image: %w", err)
	}
	return nil
}
