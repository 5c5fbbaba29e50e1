package protocol

// sources are what a recovery has read: copies of the log's regions, which nobody
// changes any more. Whatever is taken from them is checked when it is.
type sources struct {
	rings  [][]uint64
	arenas [][]byte
}

// record decodes the record of a sequence number into r, from any copy where it
// proves valid: two copies with one hole each, at different places, make a whole.
func (rec *recovery) record(cfg *Config, seq uint64, r *Record) bool {
	at := seq & (cfg.Slots - 1) * RecordWords
	for _, ring := range rec.read.rings {
		got, err := decodeAt(ring[at:at+RecordWords], cfg.Run, rec.epoch, seq)
		if err == nil {
			*r = got
			return true
		}
	}
	return false
}

// start returns where the log begins: at the last snapshot that is whole, for what
// is older says nothing more, or as far back as the ring goes. It also counts
// the tasks from there on, roughly, and says what priority one of them has.
func (rec *recovery) start(cfg *Config) (start uint64, entries int, prio uint8) {
	oldest := rec.best - min(rec.best, cfg.Slots)
	for start = rec.best; start > oldest; {
		start--
		at := start & (cfg.Slots - 1) * RecordWords
		task := false
		for _, ring := range rec.read.rings {
			// A look at the kind spares the checksum of all records but a few.
			switch kindOf(ring[at]) {
			case KindSnapBegin:
				if rec.begins(cfg, start) {
					return start, entries, prio
				}
			case KindEnqueue, KindSnapTask:
				task, prio = true, prioOf(ring[at])
			}
		}
		if task {
			entries++
		}
	}
	return start, entries, prio
}

// begins reports whether a whole snapshot begins at a place of the log.
func (rec *recovery) begins(cfg *Config, seq uint64) bool {
	var r Record
	return rec.record(cfg, seq, &r) && r.Kind == KindSnapBegin && seq+r.ID.N+1 < rec.best
}

// origin is where a recovery found a task's payload: in an arena that it has read,
// or behind those in a part of what was not stored.
type origin struct {
	from int32
	cell uint32
}

// find looks for a payload in all places where it may be.
func (rec *recovery) find(l *log, ref Ref) (origin, bool) {
	for i, arena := range rec.read.arenas {
		if _, ok := ref.Read(arena); ok {
			return origin{int32(i), ref.Cell}, true
		}
	}
	for i := range l.unstored {
		if _, ok := l.unstored[i].read(ref); ok {
			return origin{int32(len(rec.read.arenas) + i), ref.Cell - l.unstored[i].cell}, true
		}
	}
	return origin{}, false
}

// payload returns what was found, of so many bytes.
func (rec *recovery) payload(l *log, o origin, bytes uint32) []byte {
	data := rec.read.arenas
	from := uint64(o.cell) * CellBytes
	if i := int(o.from) - len(data); i >= 0 {
		return l.unstored[i].data[from : from+uint64(bytes)]
	}
	return data[o.from][from : from+uint64(bytes)]
}
