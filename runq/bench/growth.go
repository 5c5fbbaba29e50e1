package bench

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/coreplica/coreplica/runq/protocol"
)

// Point is a size of the queue.
type Point struct {
	Cores int `json:"cores"`
	K     int `json:"k"`
	// Waiting tasks stand in the queue all the time.
	Waiting int `json:"waiting"`
}

// Growth returns the sizes whose costs are compared, in groups: cores, copies, and
// tasks that wait. Each group is related to its first.
func Growth() [][]Point {
	var cores, copies, waiting []Point
	for _, n := range []int{1, 2, 4, 8, 16, 32, 64} {
		cores = append(cores, Point{n, min(n, 2), 0}) // One core has one copy.
	}
	for _, k := range []int{1, 2, 3, 4} {
		copies = append(copies, Point{4, k, 0})
	}
	for _, n := range []int{10, 100, 1_000, 10_000, 100_000} {
		waiting = append(waiting, Point{2, 2, n})
	}
	return [][]Point{cores, copies, waiting}
}

// GrowthRow is the cost of a task at a size.
type GrowthRow struct {
	Schema string `json:"schema"`
	Point
	NsPerTask float64 `json:"ns_per_task"`
	// ToFirst is the ratio to the first size of the same group.
	ToFirst float64 `json:"ratio_to_first"`
	Low     float64 `json:"ci95_low"`
	High    float64 `json:"ci95_high"`
}

// GrowthSchema is the version of [GrowthRow].
const GrowthSchema = "coreplica.runq.growth/1"

// CompareGrowth measures the sizes of each group in turn.
func CompareGrowth(p Plan) ([]GrowthRow, error) {
	var rows []GrowthRow
	for _, points := range Growth() {
		var group []Contender
		for i, at := range points {
			c := Contender{Name: fmt.Sprintf("%+v", at), New: func() (Instance, error) {
				c, err := newCycle(at)
				if err != nil {
					return Instance{}, err
				}
				return Instance{Run: c.run}, nil
			}}
			if i == 0 {
				c.Name = Channel // The one that all are related to.
			}
			group = append(group, c)
		}
		found, err := Compare(group, p)
		if err != nil {
			return nil, err
		}
		for i, r := range found {
			rows = append(rows, GrowthRow{GrowthSchema, points[i], r.NsPerTask, r.ToChannel.Median, r.ToChannel.Low, r.ToChannel.High})
		}
	}
	return rows, nil
}

// WriteGrowth writes rows as a table.
func WriteGrowth(w io.Writer, rows []GrowthRow) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "cores\tcopies\twaiting\tns/task\tto the first")
	for _, r := range rows {
		fmt.Fprintf(t, "%d\t%d\t%d\t%.0f\t%.2f [%.2f, %.2f]\n", r.Cores, r.K, r.Waiting, r.NsPerTask, r.ToFirst, r.Low, r.High)
	}
	return t.Flush()
}

// geometry returns the shape that holds so many tasks.
func (p Point) geometry() protocol.Geometry {
	slots := uint64(1 << 12)
	for slots/2 < uint64(p.Waiting)+4*Batch {
		slots *= 2
	}
	return protocol.Geometry{Cores: p.Cores, Slots: slots, Cells: uint32(p.Waiting) + 1<<12}
}
