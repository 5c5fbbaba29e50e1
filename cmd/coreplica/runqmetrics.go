package main

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/coreplica/coreplica/runq"
)

// queueMetric is one number of a queue, workerMetric one of each worker.
type queueMetric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*runq.Snapshot) float64
}

type workerMetric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*runq.WorkerStats) float64
}

const metricPrefix = "coreplica_runq_"

func queueCounter(name, help string, of func(*runq.Stats) uint64) queueMetric {
	return queueMetric{prometheus.NewDesc(metricPrefix+name, help, []string{"queue"}, nil), prometheus.CounterValue,
		func(s *runq.Snapshot) float64 { return float64(of(&s.Stats)) }}
}

func queueGauge(name, help string, of func(*runq.Snapshot) float64) queueMetric {
	return queueMetric{prometheus.NewDesc(metricPrefix+name, help, []string{"queue"}, nil), prometheus.GaugeValue, of}
}

func workerMetricOf(name, help string, kind prometheus.ValueType, of func(*runq.WorkerStats) float64) workerMetric {
	return workerMetric{prometheus.NewDesc(metricPrefix+"worker_"+name, help, []string{"queue", "worker"}, nil), kind, of}
}

var (
	// upMetric is the only one of a queue that is not open.
	upMetric = prometheus.NewDesc(metricPrefix+"up", "Whether the queue is open and answers.", []string{"queue"}, nil)
	// endedMetric divides the tasks that have ended by how.
	endedMetric = prometheus.NewDesc(metricPrefix+"tasks_ended_total", "Tasks that have ended, by how: completed, failed, cancelled or lost.", []string{"queue", "outcome"}, nil)
	infoMetric  = prometheus.NewDesc(metricPrefix+"worker_info", "Where a worker belongs, by CPU and memory node; always 1.", []string{"queue", "worker", "cpu", "node"}, nil)

	queueMetrics = []queueMetric{
		queueGauge("opened_timestamp_seconds", "When the queue was opened, in seconds since 1970.", func(s *runq.Snapshot) float64 { return float64(s.Opened.UnixMilli()) / 1000 }),
		queueGauge("copies", "How many failure domains each task stands in.", func(s *runq.Snapshot) float64 { return float64(s.K) }),
		queueGauge("tasks_pending", "Tasks that have not ended.", func(s *runq.Snapshot) float64 { return float64(s.Stats.Pending) }),
		queueGauge("results_retained", "Results that wait to be handed over.", func(s *runq.Snapshot) float64 { return float64(s.Stats.Retained) }),
		queueCounter("tasks_submitted_total", "Tasks that were submitted, refused ones too.", func(s *runq.Stats) uint64 { return s.Submitted }),
		queueCounter("tasks_accepted_total", "Tasks of which every copy was written.", func(s *runq.Stats) uint64 { return s.Accepted }),
		queueCounter("tasks_stuck_total", "Attempts that went past their task lease.", func(s *runq.Stats) uint64 { return s.Stuck }),
		queueCounter("retries_total", "Answers that made the submitter ask again.", func(s *runq.Stats) uint64 { return s.Retried }),
		queueCounter("records_lost_total", "Times that records of a queue had no copy left.", func(s *runq.Stats) uint64 { return s.RecordsLost }),
		queueCounter("crashes_total", "Deaths of workers that nobody asked for.", func(s *runq.Stats) uint64 { return s.Crashes }),
		queueCounter("restarts_total", "Lives of workers after their first.", func(s *runq.Stats) uint64 { return s.Restarts }),
		queueCounter("takeovers_total", "Queues that another worker took over.", func(s *runq.Stats) uint64 { return s.Takeovers }),
		queueCounter("fenced_total", "Workers that found their queue taken over, and ended.", func(s *runq.Stats) uint64 { return s.Fenced }),
		queueCounter("unkillable_total", "Victims of a takeover that did not go in time.", func(s *runq.Stats) uint64 { return s.Unkillable }),
	}

	workerMetrics = []workerMetric{
		workerMetricOf("up", "Whether the worker lives.", prometheus.GaugeValue, func(w *runq.WorkerStats) float64 {
			if w.Up {
				return 1
			}
			return 0
		}),
		workerMetricOf("incarnation", "Which life of the worker this is.", prometheus.GaugeValue, func(w *runq.WorkerStats) float64 { return float64(w.Incarnation) }),
		workerMetricOf("queues", "Queues that the worker serves.", prometheus.GaugeValue, func(w *runq.WorkerStats) float64 { return float64(len(w.Queues)) }),
		workerMetricOf("tasks_pending", "Tasks of the worker's own queue that have not ended.", prometheus.GaugeValue, func(w *runq.WorkerStats) float64 { return float64(w.Pending) }),
		workerMetricOf("results_total", "Results that the worker has recorded.", prometheus.CounterValue, func(w *runq.WorkerStats) float64 { return float64(w.Completed) }),
	}
)

// snapshotCollector shows one snapshot as metrics; nil is a queue that does not
// answer.
type snapshotCollector struct {
	queue string
	s     *runq.Snapshot
}

// Describe implements [prometheus.Collector].
func (c snapshotCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- upMetric
	ch <- endedMetric
	ch <- infoMetric
	for _, m := range queueMetrics {
		ch <- m.desc
	}
	for _, m := range workerMetrics {
		ch <- m.desc
	}
}

// Collect implements [prometheus.Collector].
func (c snapshotCollector) Collect(ch chan<- prometheus.Metric) {
	send := func(desc *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, kind, v, append([]string{c.queue}, labels...)...)
	}
	if c.s == nil {
		send(upMetric, prometheus.GaugeValue, 0)
		return
	}
	send(upMetric, prometheus.GaugeValue, 1)
	for _, m := range queueMetrics {
		send(m.desc, m.kind, m.value(c.s))
	}
	s := &c.s.Stats
	send(endedMetric, prometheus.CounterValue, float64(s.Completed), "completed")
	send(endedMetric, prometheus.CounterValue, float64(s.Failed), "failed")
	send(endedMetric, prometheus.CounterValue, float64(s.Cancelled), "cancelled")
	send(endedMetric, prometheus.CounterValue, float64(s.Lost), "lost")
	for i := range s.Workers {
		w, worker := &s.Workers[i], strconv.Itoa(i)
		send(infoMetric, prometheus.GaugeValue, 1, worker, strconv.Itoa(w.CPU), strconv.Itoa(w.Node))
		for _, m := range workerMetrics {
			send(m.desc, m.kind, m.value(w), worker)
		}
	}
}
