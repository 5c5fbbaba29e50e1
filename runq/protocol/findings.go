package protocol

import "slices"

// findings are the valid records of a part of a log, in blocks: most of a ring is
// older than the last snapshot, and is not looked at.
type findings struct {
	blocks [][]Record // Of KindNone where there is none; nil where no record of a block is known.
	first  uint64     // A multiple of findingsBlock.
	n      int
	spare  []Record // For blocks.
}

const findingsBlock = 512

func newFindings(from, to uint64) findings {
	first := from &^ (findingsBlock - 1)
	return findings{make([][]Record, (to-first+findingsBlock-1)/findingsBlock), first, 0, nil}
}

// at returns the record of a sequence number, or nil.
func (f *findings) at(seq uint64) *Record {
	i := (seq - f.first) / findingsBlock
	if i >= uint64(len(f.blocks)) || f.blocks[i] == nil {
		return nil
	}
	if r := &f.blocks[i][seq%findingsBlock]; r.Kind != KindNone {
		return r
	}
	return nil
}

// put notes a record of a part that is covered.
func (f *findings) put(seq uint64, r Record) {
	i := (seq - f.first) / findingsBlock
	if f.blocks[i] == nil {
		f.blocks[i] = f.block()
	}
	f.blocks[i][seq%findingsBlock] = r
	f.n++
}

func (f *findings) block() []Record {
	if len(f.spare) < findingsBlock {
		return make([]Record, findingsBlock)
	}
	b := f.spare[:findingsBlock:findingsBlock]
	f.spare = f.spare[findingsBlock:]
	clear(b)
	return b
}

// cover makes room for a part of the log that may go further than was known.
func (f *findings) cover(from, to uint64) {
	end := f.first + uint64(len(f.blocks))*findingsBlock
	if from >= f.first && to <= end {
		return
	}
	wider := newFindings(min(from, f.first), max(to, end))
	copy(wider.blocks[(f.first-wider.first)/findingsBlock:], f.blocks)
	wider.n, wider.spare = f.n, f.spare
	*f = wider
}

// all yields the records in order.
func (f *findings) all(yield func(uint64, *Record) bool) {
	for i, block := range f.blocks {
		for j := range block {
			if block[j].Kind != KindNone && !yield(f.first+uint64(i*findingsBlock+j), &block[j]) {
				return
			}
		}
	}
}

func (f *findings) clone() findings {
	c := findings{slices.Clone(f.blocks), f.first, f.n, nil}
	for i := range c.blocks {
		c.blocks[i] = slices.Clone(c.blocks[i])
	}
	return c
}

// scan decodes what a region holds and no other did, from the end of the log back
// to the last snapshot that is whole: what is older says nothing more.
func (rec *recovery) scan(ev *Event, cfg Config, best uint64) {
	oldest := best - min(best, cfg.Slots)
	rec.found.cover(oldest, best)
	for seq := best; seq > oldest; {
		seq--
		if rec.found.at(seq) == nil {
			at := (seq & (cfg.Slots - 1)) * RecordWords
			if r, err := decodeAt(ev.Slots[at:at+RecordWords], cfg.Run, rec.epoch, seq); err == nil {
				rec.found.put(seq, r)
			}
		}
		if rec.begins(seq) {
			return
		}
	}
}

// begins reports whether a whole snapshot begins at a place of the log.
func (rec *recovery) begins(seq uint64) bool {
	r := rec.found.at(seq)
	return r != nil && r.Kind == KindSnapBegin && seq+r.ID.N+1 < rec.best
}
