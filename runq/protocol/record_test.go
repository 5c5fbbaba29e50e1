package protocol

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// randomRecord fills every field to its width.
func randomRecord(rng *rand.Rand) Record {
	return Record{
		Kind: Kind(1 + rng.IntN(int(kinds)-1)), Epoch: rng.Uint32N(MaxEpoch + 1), Seq: rng.Uint64N(MaxTail + 1),
		ID:   TaskID{7, Stream{Core(rng.IntN(MaxCores)), rng.Uint32()}, rng.Uint64N(MaxN + 1)},
		Mode: Mode(rng.IntN(int(modes))), Prio: uint8(rng.IntN(MaxPrio + 1)), Crashes: uint8(rng.IntN(256)), Hop: uint16(rng.IntN(MaxHop + 1)),
		Attempt: uint16(rng.Uint32()), Token: rng.Uint32(), Arg: uint16(rng.Uint32()), Arg2: uint16(rng.Uint32()), Flags: Flags(rng.IntN(int(flagsEnd))),
		Payload:   Ref{rng.Uint32(), rng.Uint32(), rng.Uint32()},
		NotBefore: rng.Uint64N(MaxTime + 1), Deadline: rng.Uint64N(MaxTime + 1), Affinity: Core(rng.IntN(MaxCores + 1)),
	}
}

func TestRecordSurvivesEncoding(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		want := randomRecord(rng)
		var words [RecordWords]uint64
		want.Encode(words[:])
		got, err := Decode(words[:], 7)
		if err != nil {
			t.Fatalf("%+v: %v", want, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	}
}

// A single flipped bit, another run, another place: none of them passes.
func TestRecordRefusesDamage(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var words [RecordWords]uint64
	r := randomRecord(rng)
	r.Encode(words[:])
	for bit := range RecordWords * 64 {
		words[bit/64] ^= 1 << (bit % 64)
		if _, err := Decode(words[:], 7); !errors.Is(err, ErrCorrupt) {
			t.Errorf("bit %d flipped: %v", bit, err)
		}
		words[bit/64] ^= 1 << (bit % 64)
	}
	if _, err := Decode(words[:], 8); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a record of another run passes: %v", err)
	}
	if _, err := decodeAt(words[:], 7, r.Epoch+1, r.Seq); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a record of another epoch passes: %v", err)
	}
	if _, err := decodeAt(words[:], 7, r.Epoch, r.Seq+1); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a record of another place passes: %v", err)
	}
	if _, err := Decode(words[:3], 7); !errors.Is(err, ErrCorrupt) {
		t.Errorf("half a record passes: %v", err)
	}
	if _, err := Decode(make([]uint64, RecordWords), 7); !errors.Is(err, ErrCorrupt) {
		t.Error("memory that was never written passes")
	}
}

// Whatever lies in memory, decoding does not panic, and what it accepts encodes
// to the same words.
func FuzzDecode(f *testing.F) {
	f.Add(uint64(1), uint64(2), uint64(3), uint64(4), uint64(5), uint64(6), uint64(7))
	f.Add(uint64(KindEnqueue)<<16, uint64(math.MaxUint64), uint64(0), uint64(0), uint64(0), uint64(0), uint64(0))
	f.Fuzz(func(t *testing.T, a, b, c, d, e, g, h uint64) {
		words := []uint64{a, b, c, d, e, g, h, h << 32}
		words[7] |= uint64(checksum(words, 7)) // Past the checksum, into the fields.
		r, err := Decode(words, 7)
		if err != nil {
			return
		}
		var again [RecordWords]uint64
		r.Encode(again[:])
		if diff := cmp.Diff(words, again[:]); diff != "" && a>>8&63 <= MaxPrio && uint8(g) == uint8(uint16(g)) {
			t.Errorf("%+v encodes to other words:\n%s", r, diff)
		}
	})
}

// Words against their fields, all the way to the limits.
func TestWordsSurvivePacking(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 5000 {
		commit := CommitWord{rng.Uint32N(MaxEpoch + 1), rng.IntN(2) == 0, rng.Uint64N(MaxTail + 1)}
		if got := UnpackCommit(commit.Pack()); got != commit {
			t.Fatalf("%v became %v", commit, got)
		}
		arbiter := ArbiterWord{Phase(rng.IntN(4)), rng.Uint32N(MaxEpoch + 1), Core(rng.IntN(64)), rng.Uint32N(MaxEpoch + 1), Core(rng.IntN(64)), uint8(rng.Uint32())}
		if got := UnpackArbiter(arbiter.Pack()); got != arbiter {
			t.Fatalf("%v became %v", arbiter, got)
		}
		beat := HeartbeatWord{rng.Uint32(), rng.Uint32()}
		if got := UnpackHeartbeat(beat.Pack()); got != beat {
			t.Fatalf("%v became %v", beat, got)
		}
		area := DirectoryWord{Core(rng.IntN(64)), rng.Uint32N(MaxEpoch + 1), rng.Uint32()}
		if got := UnpackDirectory(area.Pack()); got != area {
			t.Fatalf("%v became %v", area, got)
		}
	}
	for word := range uint64(1000) {
		word *= 0x9e3779b97f4a7c15
		if got := UnpackCommit(word).Pack(); got != word {
			t.Fatalf("commit word %x became %x", word, got)
		}
	}
}

// The in-sync mask counts neighbours, so 64 cores fit it (correction 14).
func TestMaskCountsNeighbours(t *testing.T) {
	word := ArbiterWord{Phase: Recovering, Epoch: 5, Owner: 62}
	word = word.activate([]Core{62, 63, 0, 1}, 64)
	got := UnpackArbiter(word.Pack()).InSync(64)
	if got != set([]Core{62, 63, 0, 1}) || word.ActiveEpoch != 5 || word.Phase != Active {
		t.Errorf("%v holds %b", word, got)
	}
}

// What names a place in shared memory names one place only.
func TestLayoutDoesNotOverlap(t *testing.T) {
	g := Geometry{Cores: 5, Slots: 64, Cells: 16}
	used := map[int]string{}
	claim := func(at int, what string) {
		if other, taken := used[at]; taken {
			t.Errorf("%s and %s share word %d", what, other, at)
		}
		used[at] = what
		if at < 0 || at >= g.ControlWords() {
			t.Errorf("%s lies outside, at %d of %d", what, at, g.ControlWords())
		}
	}
	for c := range Core(5) {
		claim(g.ArbiterOffset(c), "arbiter")
		claim(g.IncarnationOffset(c), "incarnation")
		claim(g.HeartbeatOffset(c), "heartbeat")
		for host := range Core(5) {
			for area := range SpareAreas {
				claim(g.DirectoryOffset(c, host, area), "directory")
			}
		}
	}
	if g.CommitOffset() >= g.SlotOffset(0) || g.SlotOffset(63)+RecordWords != g.ArenaOffset() || g.SlotOffset(64) != g.SlotOffset(0) ||
		g.ArenaOffset()+16*CellBytes/8 != g.RegionWords() {
		t.Error("a region's parts overlap or leave gaps")
	}
}

// At most 128 bytes of metadata a live task and copy.
func TestMetadataBytes(t *testing.T) {
	for _, slots := range []uint64{32, 4096, 1 << 24} {
		if got := (Geometry{Cores: 4, Slots: slots}).MetadataBytes(); got > 128 {
			t.Errorf("%d slots: %d bytes a task", slots, got)
		}
	}
}
