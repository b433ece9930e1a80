package main

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Preload measures filling a store, whose size is what counts.
func preload(ctx context.Context, o options, start func() error) (result, error) {
	f, err := dial(ctx, o.endpoints, o.conns)
	if err != nil {
		return result{}, err
	}
	if err := start(); err != nil {
		return result{}, err
	}
	begin := time.Now()
	if err := f.fill(ctx, o.keys, o.valueSize); err != nil {
		return result{}, err
	}
	seconds := time.Since(begin).Seconds()
	return result{Metrics: map[string]float64{
		"ops": float64(o.keys), "seconds": seconds, "qps": float64(o.keys) / seconds,
	}}, nil
}

// FirstRead is ready before the server is and ends with the first linearizable read that is answered.
func firstRead(ctx context.Context, o options, start func() error) (result, error) {
	if err := start(); err != nil {
		return result{}, err
	}
	begin := time.Now()
	f, err := dial(ctx, o.endpoints, 1)
	if err != nil {
		return result{}, err
	}
	seconds := time.Since(begin).Seconds()
	// The dial has read already; this read says that the data is there.
	response, err := f[0].Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return result{}, err
	}
	if response.Count != int64(o.keys) {
		return result{}, fmt.Errorf("%d keys after the restart, want %d", response.Count, o.keys)
	}
	return result{Metrics: map[string]float64{"ops": 1, "seconds": seconds}}, nil
}
