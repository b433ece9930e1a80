package main

import (
	"context"
	"fmt"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func (c *client) txn() {
	c.sendTxn(c.randomTxn(c.shuffled(), 0))
}

func (c *client) sendTxn(r *txnRequest) {
	_, _ = c.do(c.id, c.endpoint, request{Txn: r}, func(ctx context.Context) (*pb.ResponseHeader, *response, error) {
		answer, err := c.kv.Txn(ctx, r.wire())
		if err != nil {
			c.forget(err, leasesOf(r)...)
			return nil, nil, err
		}
		return answer.Header, &response{Txn: txnResponseOf(answer)}, nil
	})
}

// RandomTxn writes no key twice in one branch, which would be refused: both branches draw from keys that the other does not.
func (c *client) randomTxn(free *[]string, depth int) *txnRequest {
	r := &txnRequest{}
	for range c.random.IntN(3) {
		r.Compares = append(r.Compares, c.compare())
	}
	for range 1 + c.random.IntN(3) {
		r.Then = append(r.Then, c.txnOp(free, depth))
	}
	for range c.random.IntN(3) {
		r.Else = append(r.Else, c.txnOp(free, depth))
	}
	return r
}

func (c *client) shuffled() *[]string {
	keys := make([]string, c.keys)
	for i, n := range c.random.Perm(c.keys) {
		keys[i] = fmt.Sprintf("%s%02d", c.prefix, n)
	}
	return &keys
}

func (c *client) txnOp(free *[]string, depth int) request {
	n := c.random.IntN(20)
	if n >= 8 && n < 17 && len(*free) == 0 {
		n = 0
	}
	switch {
	case n < 5:
		return request{Range: &rangeRequest{Key: c.key()}}
	case n < 8:
		r := &rangeRequest{Serializable: c.oneOf(4)}
		r.Key, r.End = c.span()
		return request{Range: r}
	case n < 14:
		r := &putRequest{Key: c.take(free), Value: c.value(), PrevKv: c.oneOf(3)}
		if c.oneOf(6) {
			r.Lease = c.anyLease(false)
		}
		return request{Put: r}
	case n < 17:
		return request{Delete: &deleteRequest{Key: c.take(free), PrevKv: c.oneOf(2)}}
	case depth > 0:
		return request{Range: &rangeRequest{Key: c.key()}}
	default:
		return request{Txn: c.randomTxn(free, depth+1)}
	}
}

func (c *client) take(free *[]string) string {
	key := (*free)[0]
	*free = (*free)[1:]
	return key
}

// Compare is about as often true as not: it asks for what was last seen of the key.
func (c *client) compare() compare {
	out := compare{Key: c.key(), Result: "="}
	if c.oneOf(3) {
		out.Result = []string{"!=", ">", "<"}[c.random.IntN(3)]
	}
	if c.oneOf(12) {
		out.Key, out.End = c.span()
	}
	known := c.seen[out.Key]
	switch c.random.IntN(5) {
	case 0:
		out.Target, out.Value = "value", known.Value
		// A padded value is compared as what is recorded of it, and so it is not asked for.
		if strings.Contains(out.Value, "#") {
			out.Value = "1"
		}
	case 1:
		out.Target, out.Number = "version", known.Version
	case 2:
		out.Target, out.Number = "create", known.Create
	case 3:
		out.Target, out.Number = "mod", known.Mod
	default:
		out.Target, out.Number = "lease", known.Lease
	}
	return out
}

func leasesOf(r *txnRequest) []int64 {
	var out []int64
	for _, ops := range [][]request{r.Then, r.Else} {
		for _, op := range ops {
			switch {
			case op.Put != nil && op.Put.Lease != 0:
				out = append(out, op.Put.Lease)
			case op.Txn != nil:
				out = append(out, leasesOf(op.Txn)...)
			}
		}
	}
	return out
}
