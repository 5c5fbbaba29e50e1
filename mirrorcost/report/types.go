package report

import "time"

// Schema names the version of the JSON form.
const Schema = "coreplica.mirrorcost/1"

// Interval is a mean with its 95 % confidence interval, in the unit that the
// field's name says.
type Interval struct {
	Mean float64 `json:"mean"`
	Low  float64 `json:"ci95_low"`
	High float64 `json:"ci95_high"`
}

// SpansZero reports whether the interval leaves the sign open.
func (i Interval) SpansZero() bool { return i.Low <= 0 && i.High >= 0 }

// Report is what one run found.
type Report struct {
	Schema    string    `json:"schema"`
	Version   string    `json:"version"`
	StartedAt time.Time `json:"started_at"`
	// Command is the command line that repeats the run.
	Command        []string `json:"command"`
	Seed           uint64   `json:"seed"`
	ElapsedSeconds float64  `json:"elapsed_seconds"`
	Machine        Machine  `json:"machine"`
	Load           Load     `json:"load"`
	Baseline       Leg      `json:"baseline"`
	Mirror         Leg      `json:"mirror"`
	Tax            Tax      `json:"tax"`
	Quads          Quads    `json:"quads"`
	// Instruments are totals of other instruments over the ledger pass.
	Instruments []Instrument `json:"instruments"`
	// ProbeCost is nil where the run was told not to measure it.
	ProbeCost *ProbeCost `json:"probe_cost,omitempty"`
	// Verdict is one sentence; Warnings are what a reader must know before
	// quoting it.
	Verdict  string   `json:"verdict"`
	Warnings []string `json:"warnings"`

	// Samples carries the stacks. It is not part of the JSON form: a saved
	// run keeps it in profile.pb.gz.
	Samples []Sample `json:"-"`
}

// Machine is where the figures were measured.
type Machine struct {
	Kernel   string `json:"kernel"`
	CPUModel string `json:"cpu_model"`
	CPUs     int    `json:"cpus"`
	Virtual  bool   `json:"virtual"`
	// Quiet is false when other programs used more than a twentieth of the
	// CPUs during the measured blocks.
	Quiet                bool    `json:"quiet"`
	OtherProgramsPercent float64 `json:"other_programs_percent"`
	StolenPercent        float64 `json:"stolen_percent"`
	// AttachTypes says how each probe was attached, e.g. "tp_btf".
	AttachTypes map[string]string `json:"attach_types"`
}

// Load is what both legs were asked to do.
type Load struct {
	SizeBytes     int     `json:"size_bytes"`
	Mode          string  `json:"mode"`
	Pattern       string  `json:"pattern"`
	Threads       int     `json:"threads"`
	FsyncEvery    int     `json:"fsync_every"`
	Batch         int     `json:"batch"`
	Csum          bool    `json:"csum"`
	RatePerSecond float64 `json:"rate_per_second"`
	// Saturated is true when the load wrote as fast as it could.
	Saturated bool   `json:"saturated"`
	Substrate string `json:"substrate"`
	// SpinNs is the known cost that was asked for, a write of the mirror, and
	// SpinMeasuredNs what it cost by the load's own clock: the median of the
	// spins, which no interrupt hit. SpinMeanNs is their mean; the clock
	// bills interrupts to the thread, of which the ledger books a part as
	// hardirq and the rest, such as a hypervisor's exits, as the load's. The
	// cost of the spin in the load's user context lies between the two.
	SpinNs         int64   `json:"spin_ns"`
	SpinMeasuredNs float64 `json:"spin_measured_ns"`
	SpinMeanNs     float64 `json:"spin_mean_ns"`
}

// Leg is one side of the comparison.
type Leg struct {
	Name          string `json:"name"`
	EffectiveMode string `json:"effective_mode"`
	Copies        int    `json:"copies"`

	// Writes, Bytes, Acknowledged, the bios and the flushes are counted in
	// the counted pass, in which the block probes are attached.
	Writes                uint64            `json:"writes"`
	Bytes                 uint64            `json:"bytes"`
	Acknowledged          uint64            `json:"acknowledged"`
	BiosDataPerDevice     map[string]uint64 `json:"bios_data_per_device"`
	BiosMetadataPerDevice map[string]uint64 `json:"bios_metadata_per_device"`
	FlushesPerDevice      map[string]uint64 `json:"flushes_per_device"`
	MergesPerDevice       map[string]uint64 `json:"merges_per_device"`
	RequestsPerDevice     map[string]uint64 `json:"requests_per_device"`
	// DeviceLatency holds one log2 histogram a device, of issue to
	// completion.
	DeviceLatency map[string]Histogram `json:"device_latency"`

	// LedgerWrites were acknowledged in the ledger pass, which sets the
	// costs.
	LedgerWrites          uint64    `json:"ledger_writes"`
	CPUNsPerWrite         Interval  `json:"cpu_ns_per_write"`
	DeferredNsPerWrite    Interval  `json:"deferred_ns_per_write"`
	Stages                []Stage   `json:"stages"`
	Contexts              []Context `json:"contexts"`
	LatencyNs             Latency   `json:"latency_ns"`
	LatencyHist           Histogram `json:"latency_histogram"`
	WritesPerSecond       float64   `json:"writes_per_second"`
	ClosureError          float64   `json:"closure_error"`
	Unattributed          float64   `json:"unattributed"`
	StolenPercent         float64   `json:"stolen_percent"`
	SwitchesPerWrite      float64   `json:"switches_per_write"`
	WorkExecutionPerWrite float64   `json:"work_executions_per_write"`
	Samples               uint64    `json:"samples"`
	SmearedPercent        float64   `json:"smeared_percent"`
	Drops                 uint64    `json:"drops"`
}

// Instrument compares a total of the ledger with one of another instrument.
type Instrument struct {
	Name     string  `json:"name"`
	LedgerNs float64 `json:"ledger_ns"`
	OtherNs  float64 `json:"other_ns"`
}

// Stage is one part of the cost of a write. The stages of a leg add up to its
// CPUNsPerWrite.
type Stage struct {
	Stage      string  `json:"stage"`
	NsPerWrite float64 `json:"ns_per_write"`
	Low        float64 `json:"ci95_low"`
	High       float64 `json:"ci95_high"`
	Samples    uint64  `json:"samples"`
}

// Context is one row of the ledger. The contexts of a leg add up to wall time
// times CPUs.
type Context struct {
	// Context is a name such as "idle", "load/kernel", "worker/loop_workfn",
	// "kthread/ksoftirqd", "softirq/BLOCK", "hardirq/36", "other programs",
	// "coreplica", "stolen" or "unattributed".
	Context string `json:"context"`
	// Ns is signed: a short window may hand back stolen time.
	Ns int64 `json:"ns"`
	// Charged is true when the context counts towards the cost of a write;
	// Shared when other file systems use it too; Substrate when it belongs
	// to the device below the mirror.
	Charged   bool `json:"charged"`
	Shared    bool `json:"shared"`
	Substrate bool `json:"substrate"`
	// NsPerWrite is Ns less the context's idle rate times wall time, per
	// acknowledged write. It is not clamped: it may be negative.
	NsPerWrite float64 `json:"ns_per_write"`
}

// Latency of a write as the load saw it.
type Latency struct {
	P50  int64 `json:"p50"`
	P99  int64 `json:"p99"`
	P999 int64 `json:"p999"`
}

// Histogram counts in buckets; bucket i holds values below UpperNs[i].
type Histogram struct {
	UpperNs []uint64 `json:"upper_ns"`
	Count   []uint64 `json:"count"`
}

// Tax is what the mirror costs above the baseline, per acknowledged write.
type Tax struct {
	CPUNsPerWrite Interval `json:"cpu_ns_per_write"`
	Ratio         Interval `json:"ratio"`
	// WithoutSubstrate leaves out the device below the mirror (loop, zram,
	// virtio).
	WithoutSubstrate Pair `json:"without_substrate"`
	// Lower leaves out work functions that other file systems share.
	Lower Pair `json:"lower_bound"`
	// Corrected is the tax less what the probes themselves cost.
	Corrected          Pair    `json:"corrected_for_probes"`
	UtilisationPercent float64 `json:"utilisation_percent"`
	// Shown is false when the interval spans zero.
	Shown bool `json:"shown"`
}

// Pair is a difference and a ratio of the two legs.
type Pair struct {
	CPUNsPerWrite Interval `json:"cpu_ns_per_write"`
	Ratio         Interval `json:"ratio"`
}

// Quads counts the groups of four blocks, ABBA or BAAB, that the statistics
// stand on.
type Quads struct {
	Used      int `json:"used"`
	Discarded int `json:"discarded"`
	// Voided quads saw a bio on the leg that should have rested.
	Voided int `json:"voided"`
	// StealThresholdPercent was set before the run.
	StealThresholdPercent float64 `json:"steal_threshold_percent"`
}

// ProbeCost is what measuring cost the load, as a share of its throughput when
// it writes as fast as it can.
type ProbeCost struct {
	LedgerPercent   Interval           `json:"ledger_percent"`
	AllPercent      Interval           `json:"all_percent"`
	NsPerWrite      float64            `json:"ns_per_write"`
	NsPerEvent      map[string]float64 `json:"ns_per_event"`
	EventsPerWrite  map[string]float64 `json:"events_per_write"`
	BlocksOfEach    int                `json:"blocks_of_each"`
	CorrectedNotice string             `json:"note"`
}

// Sample is a kernel stack seen by the sampler in one leg.
type Sample struct {
	Leg     string // "baseline" or "mirror"
	Context string // as in [Context]
	Stage   string
	Device  string
	// Stack is leaf first.
	Stack []Frame
	Count int64
	// Ns is the sample's share of its context's ledger time, per
	// acknowledged write. Zero for contexts that are not charged.
	Ns float64
}

// Frame is one kernel function.
type Frame struct {
	Function string
	Address  uint64
}
