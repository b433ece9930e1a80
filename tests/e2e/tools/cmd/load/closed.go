package main

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// An operation is one request of one worker, or a group of them that counts as one.
type operation func(ctx context.Context, worker int) error

// Latencies of one phase, in microseconds.
type latencies []uint32

// Closed makes a workload of workers that each have one operation under way at any time.
func closed(prepare func(context.Context, options, fleet) (operation, error)) workload {
	return func(ctx context.Context, o options, start func() error) (result, error) {
		f, err := dial(ctx, o.endpoints, o.conns)
		if err != nil {
			return result{}, err
		}
		operation, err := prepare(ctx, o, f)
		if err != nil {
			return result{}, err
		}
		if _, _, err := loop(ctx, o.clients, warmUp(o), operation); err != nil {
			return result{}, err
		}
		if err := start(); err != nil {
			return result{}, err
		}
		latencies, elapsed, err := loop(ctx, o.clients, o.time, operation)
		if err != nil {
			return result{}, err
		}
		return result{Metrics: latencies.metrics(elapsed)}, nil
	}
}

// WarmUp is long enough for connections, caches and the runtime's heap to settle.
func warmUp(o options) time.Duration { return max(o.time/5, 300*time.Millisecond) }

// Loop runs the operation on all workers for that long. The first error ends it.
func loop(ctx context.Context, workers int, howLong time.Duration, operation operation) (latencies, time.Duration, error) {
	each := make([]latencies, workers)
	group, ctx := errgroup.WithContext(ctx)
	begin := time.Now()
	for worker := range workers {
		group.Go(func() error {
			for {
				sent := time.Now()
				if sent.Sub(begin) >= howLong {
					return nil
				}
				limited, cancel := context.WithTimeout(ctx, requestLimit)
				err := operation(limited, worker)
				cancel()
				if err != nil {
					return err
				}
				each[worker] = append(each[worker], micros(time.Since(sent)))
			}
		})
	}
	err := group.Wait()
	return slices.Concat(each...), time.Since(begin), err
}

func micros(d time.Duration) uint32 { return uint32(min(d.Microseconds(), 1<<32-1)) }

// Percentile by nearest rank, in milliseconds. The latencies are sorted.
func (l latencies) percentile(p float64) float64 {
	if len(l) == 0 {
		return 0
	}
	return float64(l[min(int(p/100*float64(len(l))), len(l)-1)]) / 1000
}

func (l latencies) metrics(elapsed time.Duration) map[string]float64 {
	slices.Sort(l)
	return map[string]float64{
		"ops":     float64(len(l)),
		"seconds": elapsed.Seconds(),
		"qps":     float64(len(l)) / elapsed.Seconds(),
		"p50_ms":  l.percentile(50),
		"p99_ms":  l.percentile(99),
		"max_ms":  l.percentile(100),
	}
}
