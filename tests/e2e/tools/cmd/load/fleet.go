package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

const (
	prefix       = "bench/"
	preloadBatch = 100
	requestLimit = 30 * time.Second
)

// A fleet is a number of connections, each to one member, in turn. They live as long as the process: closing them
// would be work for the servers while their counters are read.
type fleet []*clientv3.Client

// Dial waits until the members listen and each connection has answered a read.
func dial(ctx context.Context, endpoints []string, conns int) (fleet, error) {
	for _, endpoint := range endpoints {
		if err := waitForListener(ctx, endpoint); err != nil {
			return nil, err
		}
	}
	f := make(fleet, conns)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i := range f {
		group.Go(func() error {
			endpoint := endpoints[i%len(endpoints)]
			client, err := connect(endpoint)
			if err != nil {
				return err
			}
			f[i] = client
			if _, err = client.Get(ctx, prefix); err != nil {
				return fmt.Errorf("connect to %s: %w", endpoint, err)
			}
			return nil
		})
	}
	return f, group.Wait()
}

func connect(endpoint string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()})
}

// WaitForListener spares the client its pause of a second after a refused connection.
func waitForListener(ctx context.Context, endpoint string) error {
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", endpoint)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nobody listens at %s: %w", endpoint, err)
		case <-time.After(time.Millisecond):
		}
	}
}

// Of is the connection of a worker.
func (f fleet) of(worker int) *clientv3.Client { return f[worker%len(f)] }

// Key is 32 bytes long.
func key(i int) string { return fmt.Sprintf("%s%026d", prefix, i) }

// Random bytes, which no compression makes smaller.
func value(size int) string {
	bytes := make([]byte, size)
	for i := range bytes {
		bytes[i] = byte(rand.Uint32())
	}
	return string(bytes)
}

// Fill puts the keys in transactions of a hundred.
func (f fleet) fill(ctx context.Context, keys, valueSize int) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for first := 0; first < keys; first += preloadBatch {
		group.Go(func() error {
			value := value(valueSize)
			var puts []clientv3.Op
			for i := first; i < min(first+preloadBatch, keys); i++ {
				puts = append(puts, clientv3.OpPut(key(i), value))
			}
			limited, cancel := context.WithTimeout(ctx, requestLimit)
			defer cancel()
			_, err := f.of(first / preloadBatch).Txn(limited).Then(puts...).Commit()
			return err
		})
	}
	return group.Wait()
}
