package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Client sends one request at a time.
type client struct {
	*traffic
	id       int
	endpoint int
	conn     *clientv3.Client
	kv       pb.KVClient
	lease    pb.LeaseClient
	random   *rand.Rand
	seq      int
	seen     map[string]keyValue // what it last heard of a key
}

func (c *client) run(ctx context.Context) {
	c.seen = map[string]keyValue{}
	pause := time.Duration(c.clients) * time.Second / time.Duration(c.rate)
	for next := time.Now(); ; {
		// Between half and one and a half times the pause, so that clients do not fall into step.
		next = next.Add(pause/2 + time.Duration(c.random.Int64N(int64(pause)+1)))
		if late := time.Now(); next.Before(late) {
			next = late
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(next)):
		}
		c.step()
	}
}

// Step is one request of a random kind.
func (c *client) step() {
	kinds := []struct {
		weight int
		send   func()
	}{
		{26, c.put}, {16, c.get}, {7, c.list}, {6, c.getOld}, {8, c.delete}, {2, c.deleteRange}, {22, c.txn},
		{3, c.grant}, {6, c.keepAlive}, {2, c.revoke}, {2, c.timeToLive},
	}
	total := 0
	for _, kind := range kinds {
		total += kind.weight
	}
	n := c.random.IntN(total)
	for _, kind := range kinds {
		if n -= kind.weight; n < 0 {
			kind.send()
			return
		}
	}
}

func (c *client) oneOf(n int) bool { return c.random.IntN(n) == 0 }

func (c *client) key() string { return fmt.Sprintf("%s%02d", c.prefix, c.random.IntN(c.keys)) }

// Value is written once in the whole run.
func (c *client) value() string {
	c.seq++
	id := fmt.Sprintf("%d.%d", c.id, c.seq)
	if c.random.IntN(1000) < c.large {
		return recorded([]byte(padded(id, 20_000+c.random.IntN(80_000))))
	}
	return id
}

// Span is a part of the key space, or a key and everything after it.
func (c *client) span() (string, string) {
	if c.oneOf(4) {
		return c.prefix, c.end()
	}
	a, b := c.key(), c.key()
	if a > b {
		a, b = b, a
	}
	if a == b {
		return a, c.end()
	}
	return a, b
}

func (c *client) put() {
	request := &putRequest{Key: c.key(), Value: c.value(), PrevKv: c.oneOf(3)}
	if c.oneOf(4) {
		request.Lease = c.anyLease(false)
	}
	_, _ = c.do(c.id, c.endpoint, wrapPut(request), func(ctx context.Context) (*pb.ResponseHeader, *response, error) {
		r, err := c.kv.Put(ctx, request.wire())
		if err != nil {
			c.forget(err, request.Lease)
			return nil, nil, err
		}
		return r.Header, &response{Put: &putResponse{keyValueOf(r.PrevKv)}}, nil
	})
}

func wrapPut(r *putRequest) request { return request{Put: r} }

func (c *client) get() {
	c.read(&rangeRequest{Key: c.key(), Serializable: c.oneOf(3)})
}

func (c *client) list() {
	request := &rangeRequest{Serializable: c.oneOf(3), CountOnly: c.oneOf(4), KeysOnly: c.oneOf(6)}
	request.Key, request.End = c.span()
	if c.oneOf(3) {
		request.Limit = 1 + c.random.Int64N(5)
	}
	c.read(request)
}

// GetOld reads a revision of the past, now and then one that has been compacted or is yet to come.
func (c *client) getOld() {
	latest := c.latest.Load()
	request := &rangeRequest{Key: c.key(), Revision: max(1, latest-c.random.Int64N(60)), Serializable: c.oneOf(2)}
	switch c.random.IntN(10) {
	case 0:
		request.Revision = max(1, c.compact.Load()-c.random.Int64N(5))
	case 1:
		request.Revision = latest + 1 + c.random.Int64N(50)
	}
	if c.oneOf(2) {
		request.Key, request.End = c.span()
	}
	c.read(request)
}

func (c *client) read(r *rangeRequest) {
	answer, err := c.do(c.id, c.endpoint, request{Range: r}, func(ctx context.Context) (*pb.ResponseHeader, *response, error) {
		answer, err := c.kv.Range(ctx, r.wire())
		if err != nil {
			return nil, nil, err
		}
		return answer.Header, &response{Range: rangeResponseOf(answer)}, nil
	})
	if err == nil && !r.KeysOnly {
		for _, kv := range answer.Range.Kvs {
			c.seen[kv.Key] = kv
		}
	}
}

func (c *client) delete() {
	c.deleteSpan(&deleteRequest{Key: c.key(), PrevKv: c.oneOf(2)})
}

func (c *client) deleteRange() {
	request := &deleteRequest{PrevKv: c.oneOf(2)}
	request.Key, request.End = c.span()
	c.deleteSpan(request)
}

func (c *client) deleteSpan(r *deleteRequest) {
	_, _ = c.do(c.id, c.endpoint, request{Delete: r}, func(ctx context.Context) (*pb.ResponseHeader, *response, error) {
		answer, err := c.kv.DeleteRange(ctx, r.wire())
		if err != nil {
			return nil, nil, err
		}
		return answer.Header, &response{Delete: deleteResponseOf(answer)}, nil
	})
}

// BurstNowAndThen writes so much at once, and again, that an event with its previous values does not fit into one response of a watch.
func (c *client) burstNowAndThen(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(5*time.Second + time.Duration(c.random.Int64N(int64(20*time.Second)))):
		}
		keys := (*c.shuffled())[:min(3, c.keys)]
		for range 4 {
			r := &txnRequest{}
			for _, key := range keys {
				c.seq++
				value := recorded([]byte(padded(fmt.Sprintf("%d.%d", c.id, c.seq), 400_000)))
				r.Then = append(r.Then, request{Put: &putRequest{Key: key, Value: value}})
			}
			c.sendTxn(r)
		}
	}
}

// CompactNowAndThen keeps to revisions that a watch over all keys has passed: the check knows everything that happened before.
func (c *client) compactNowAndThen(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second + time.Duration(c.random.Int64N(int64(7*time.Second)))):
		}
		r := &compactRequest{Revision: c.covered.Load() - c.random.Int64N(200), Physical: c.oneOf(3)}
		if r.Revision < 2 {
			continue
		}
		raise(&c.traffic.compact, r.Revision)
		_, _ = c.do(c.id, c.endpoint, request{Compact: r}, func(ctx context.Context) (*pb.ResponseHeader, *response, error) {
			answer, err := c.kv.Compact(ctx, &pb.CompactionRequest{Revision: r.Revision, Physical: r.Physical})
			if err != nil {
				return nil, nil, err
			}
			return answer.Header, nil, nil
		})
	}
}
