package main

import (
	"context"
	"slices"

	"google.golang.org/grpc/codes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// So many leases are in use at a time; those beyond it are left to expire.
const leasesMax = 8

func (c *client) grant() {
	r := &leaseRequest{Lease: c.random.Int64()>>1 + 1, TTL: 2 + c.random.Int64N(5)}
	_, err := c.do(c.id, c.endpoint, request{Grant: r}, func(ctx context.Context) (*pb.ResponseHeader, *response, error) {
		answer, err := c.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: r.Lease, TTL: r.TTL})
		if err != nil {
			return nil, nil, err
		}
		return answer.Header, &response{TTL: &answer.TTL}, nil
	})
	if err != nil {
		return
	}
	c.lock.Lock()
	defer c.lock.Unlock()
	c.leases = append(c.leases, lease{id: r.Lease, doomed: c.oneOf(2)})
	if len(c.leases) > leasesMax {
		c.leases = c.leases[1:]
	}
}

// AnyLease is one that was granted to some client, or 0.
func (c *client) anyLease(kept bool) int64 {
	c.lock.Lock()
	defer c.lock.Unlock()
	if len(c.leases) == 0 {
		return 0
	}
	l := c.leases[c.random.IntN(len(c.leases))]
	if kept && l.doomed {
		return 0
	}
	return l.id
}

// Forget leaves out leases that are gone.
func (c *client) forget(err error, ids ...int64) {
	if code, _ := codeOf(err); code != codes.NotFound {
		return
	}
	c.lock.Lock()
	defer c.lock.Unlock()
	c.leases = slices.DeleteFunc(c.leases, func(l lease) bool { return slices.Contains(ids, l.id) })
}

func (c *client) keepAlive() {
	id := c.anyLease(true)
	if id == 0 {
		return
	}
	_, _ = c.do(c.id, c.endpoint, request{KeepAlive: &leaseRequest{Lease: id}}, func(ctx context.Context) (*pb.ResponseHeader, *response, error) {
		answer, err := c.conn.KeepAliveOnce(ctx, clientv3.LeaseID(id))
		if err != nil {
			c.forget(err, id)
			return nil, nil, err
		}
		return answer.ResponseHeader, &response{TTL: &answer.TTL}, nil
	})
}

func (c *client) revoke() {
	id := c.anyLease(false)
	if id == 0 {
		return
	}
	_, _ = c.do(c.id, c.endpoint, request{Revoke: &leaseRequest{Lease: id}}, func(ctx context.Context) (*pb.ResponseHeader, *response, error) {
		answer, err := c.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id})
		if err != nil {
			c.forget(err, id)
			return nil, nil, err
		}
		return answer.Header, nil, nil
	})
}

func (c *client) timeToLive() {
	id := c.anyLease(false)
	if id == 0 {
		return
	}
	_, _ = c.do(c.id, c.endpoint, request{TTL: &leaseRequest{Lease: id}}, func(ctx context.Context) (*pb.ResponseHeader, *response, error) {
		answer, err := c.lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id})
		if err != nil {
			return nil, nil, err
		}
		return answer.Header, &response{TTL: &answer.TTL}, nil
	})
}
