package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/metadata"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
)

// Two numbers at the head of a value that is watched: its writer, and when it was sent.
const stampSize = 16

// PrepareKeepAlive: each worker refreshes its own lease on its own stream, one message after the other. The
// client's own loop sends three messages in a lease's life and would measure nothing.
func prepareKeepAlive(ctx context.Context, o options, f fleet) (operation, error) {
	streams := make([]pb.Lease_LeaseKeepAliveClient, o.clients)
	leases := make([]clientv3.LeaseID, o.clients)
	group, granting := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for worker := range streams {
		group.Go(func() error {
			lease, err := f.of(worker).Grant(granting, 600)
			if err != nil {
				return err
			}
			leases[worker] = lease.ID
			streams[worker], err = pb.NewLeaseClient(f.of(worker).ActiveConnection()).LeaseKeepAlive(ctx)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return func(_ context.Context, worker int) error {
		if err := streams[worker].Send(&pb.LeaseKeepAliveRequest{ID: int64(leases[worker])}); err != nil {
			return err
		}
		response, err := streams[worker].Recv()
		if err == nil && response.TTL != 600 {
			err = fmt.Errorf("lease %x has a TTL of %d s, want 600", leases[worker], response.TTL)
		}
		return err
	}, nil
}

// An audience is all watchers of the fan-out, each on a stream of its own.
type audience struct {
	streams []latencies
	// Of each writer's last put: the watchers that have not seen it yet, and word that all have.
	missing []atomic.Int64
	seen    []chan struct{}
	failed  chan error
}

// Watch: few writers, each of which waits until every watcher has its event before it writes again.
func watch(ctx context.Context, o options, start func() error) (result, error) {
	const writers = 4
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f, err := dial(ctx, o.endpoints, o.conns+1)
	if err != nil {
		return result{}, err
	}
	a := &audience{
		streams: make([]latencies, o.clients),
		missing: make([]atomic.Int64, writers),
		seen:    make([]chan struct{}, writers),
		failed:  make(chan error, o.clients),
	}
	for writer := range a.seen {
		a.seen[writer] = make(chan struct{}, 1)
	}
	if err := a.gather(ctx, f[:o.conns]); err != nil {
		return result{}, err
	}
	tail := value(o.valueSize - stampSize)
	operation := func(ctx context.Context, writer int) error { return a.tell(ctx, f[o.conns], writer, tail) }
	if _, _, err := loop(ctx, writers, warmUp(o), operation); err != nil {
		return result{}, err
	}
	// Nobody receives now: each put was seen by all.
	for stream := range a.streams {
		a.streams[stream] = a.streams[stream][:0]
	}
	if err := start(); err != nil {
		return result{}, err
	}
	_, elapsed, err := loop(ctx, writers, o.time, operation)
	if err != nil {
		return result{}, err
	}
	var all latencies
	for _, stream := range a.streams {
		all = append(all, stream...)
	}
	return result{Metrics: all.metrics(elapsed)}, nil
}

// Gather opens all watches and waits until the server has made them.
func (a *audience) gather(ctx context.Context, f fleet) error {
	var group errgroup.Group
	group.SetLimit(32)
	for stream := range a.streams {
		group.Go(func() error {
			// The client shares a stream among watches whose metadata is equal.
			own := metadata.AppendToOutgoingContext(ctx, "stream", strconv.Itoa(stream))
			events := f.of(stream).Watch(own, prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
			created, open := <-events
			if !open || created.Err() != nil {
				return fmt.Errorf("watch not made: %v", created.Err())
			}
			go a.receive(ctx, stream, events)
			return nil
		})
	}
	return group.Wait()
}

func (a *audience) receive(ctx context.Context, stream int, events clientv3.WatchChan) {
	for response := range events {
		if err := response.Err(); err != nil {
			a.failed <- err
			return
		}
		now := time.Now().UnixNano()
		for _, event := range response.Events {
			writer := binary.BigEndian.Uint64(event.Kv.Value)
			sent := int64(binary.BigEndian.Uint64(event.Kv.Value[8:]))
			a.streams[stream] = append(a.streams[stream], micros(time.Duration(now-sent)))
			if a.missing[writer].Add(-1) == 0 {
				a.seen[writer] <- struct{}{}
			}
		}
	}
	if ctx.Err() == nil {
		a.failed <- fmt.Errorf("stream %d has ended", stream)
	}
}

// Tell puts a value and waits until all watchers have it.
func (a *audience) tell(ctx context.Context, client *clientv3.Client, writer int, tail string) error {
	a.missing[writer].Store(int64(len(a.streams)))
	stamp := binary.BigEndian.AppendUint64(nil, uint64(writer))
	stamp = binary.BigEndian.AppendUint64(stamp, uint64(time.Now().UnixNano()))
	if _, err := client.Put(ctx, key(writer), string(stamp)+tail); err != nil {
		return err
	}
	select {
	case <-a.seen[writer]:
		return nil
	case err := <-a.failed:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%d of %d watchers have not seen a put: %w", a.missing[writer].Load(), len(a.streams), ctx.Err())
	}
}
