package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
)

// Puts a second while maintenance goes on: far below what any server here takes, so that what is seen is the wait.
const steadyRate = 1000

// Maintenance: the latency of steady puts, alone and beside a snapshot, a compaction and a defragmentation.
func maintenance(ctx context.Context, o options, start func() error) (result, error) {
	f, err := dial(ctx, o.endpoints, o.conns)
	if err != nil {
		return result{}, err
	}
	// Twice, so that compaction has a revision of each key to remove.
	for range 2 {
		if err := f.fill(ctx, o.keys, o.valueSize); err != nil {
			return result{}, err
		}
	}
	if _, _, err := steady(ctx, o, f, warmUp(o), nil); err != nil {
		return result{}, err
	}
	if err := start(); err != nil {
		return result{}, err
	}
	r := result{Metrics: map[string]float64{}, NotServed: []string{}}
	var snapshotSize int64
	phases := []struct {
		name string
		work func(context.Context) error
	}{
		{"alone", func(context.Context) error { return nil }},
		{"snapshot", func(ctx context.Context) (err error) { snapshotSize, err = snapshot(ctx, f[0]); return err }},
		{"compaction", func(ctx context.Context) error { return compact(ctx, f[0]) }},
		{"defrag", func(ctx context.Context) error { _, err := f[0].Defragment(ctx, o.endpoints[0]); return err }},
	}
	for _, phase := range phases {
		latencies, took, err := steady(ctx, o, f, o.time, phase.work)
		if status.Code(err) == codes.Unimplemented {
			r.NotServed = append(r.NotServed, phase.name)
			continue
		}
		if err != nil {
			return r, fmt.Errorf("%s: %w", phase.name, err)
		}
		slices.Sort(latencies)
		maps.Copy(r.Metrics, map[string]float64{
			phase.name + "_p99_ms":  latencies.percentile(99),
			phase.name + "_max_ms":  latencies.percentile(100),
			phase.name + "_seconds": took.Seconds(),
		})
		if phase.name == "snapshot" {
			r.Metrics["snapshot_mib_s"] = float64(snapshotSize) / (1 << 20) / took.Seconds()
		}
	}
	return r, nil
}

// Steady puts at a fixed rate until the work is done, and at least for that long. A latency counts from when the
// put was due: one that could not be sent since others hung has waited too.
func steady(ctx context.Context, o options, f fleet, atLeast time.Duration, work func(context.Context) error) (latencies, time.Duration, error) {
	var took time.Duration
	done := make(chan struct{})
	group, ctx := errgroup.WithContext(ctx)
	begin := time.Now()
	group.Go(func() error {
		defer close(done)
		if work == nil {
			return nil
		}
		err := work(ctx)
		took = time.Since(begin)
		return err
	})
	due := make(chan time.Time, o.clients)
	group.Go(func() error {
		defer close(due)
		for i := 0; ; i++ {
			next := begin.Add(time.Duration(i) * time.Second / steadyRate)
			if next.Sub(begin) >= atLeast {
				select {
				case <-done:
					return nil
				default:
				}
			}
			time.Sleep(time.Until(next))
			select {
			case due <- next:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	})
	each := make([]latencies, o.clients)
	value := value(o.valueSize)
	for worker := range each {
		group.Go(func() error {
			for due := range due {
				limited, cancel := context.WithTimeout(ctx, requestLimit)
				_, err := f.of(worker).Put(limited, key(rand.IntN(o.keys)), value)
				cancel()
				if err != nil {
					return err
				}
				each[worker] = append(each[worker], micros(time.Since(due)))
			}
			return nil
		})
	}
	err := group.Wait()
	return slices.Concat(each...), took, err
}

// Snapshot reads the whole stream and returns its length.
func snapshot(ctx context.Context, client *clientv3.Client) (int64, error) {
	stream, err := client.Snapshot(ctx)
	if err != nil {
		return 0, err
	}
	defer stream.Close()
	return io.Copy(io.Discard, stream)
}

// Compact removes all that is not current, and waits until it is gone from the store.
func compact(ctx context.Context, client *clientv3.Client) error {
	response, err := client.Get(ctx, prefix)
	if err != nil {
		return err
	}
	_, err = client.Compact(ctx, response.Header.Revision, clientv3.WithCompactPhysical())
	return err
}
