package clientv3

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"garboard.dev/tests/e2e/tools/target"
)

func (e *env) leases() pb.LeaseClient { return pb.NewLeaseClient(e.client.ActiveConnection()) }

// grant revokes the lease with the test: one that ran out later would add a revision to whatever test runs then.
func (e *env) grant(ttl, id int64) *pb.LeaseGrantResponse {
	e.Helper()
	r, err := e.leases().LeaseGrant(e.ctx, &pb.LeaseGrantRequest{TTL: ttl, ID: id})
	e.ok(err)
	e.Cleanup(func() { _, _ = e.client.Revoke(e.ctx, clientv3.LeaseID(r.ID)) })
	return r
}

func (e *env) timeToLive(id int64, keys bool) *pb.LeaseTimeToLiveResponse {
	e.Helper()
	r, err := e.leases().LeaseTimeToLive(e.ctx, &pb.LeaseTimeToLiveRequest{ID: id, Keys: keys})
	e.ok(err)
	return r
}

func TestLeaseGrant(t *testing.T) {
	e := setup(t)
	before := e.revision()
	r := e.grant(100, 0)
	if r.ID <= 0 || r.TTL != 100 || r.Error != "" {
		t.Fatalf("grant %v", r)
	}
	e.check("no revision", r.Header.Revision, before)
	id := time.Now().UnixNano()
	e.check("chosen id", e.grant(100, id).ID, id)
	e.check("a TTL of 1 is raised to the minimum", e.grant(1, 0).TTL, 2)

	_, err := e.leases().LeaseGrant(e.ctx, &pb.LeaseGrantRequest{TTL: 100, ID: id})
	target.WantStatus(t, err, codes.FailedPrecondition, "etcdserver: lease already exists")
	_, err = e.leases().LeaseGrant(e.ctx, &pb.LeaseGrantRequest{TTL: 9_000_000_001})
	target.WantStatus(t, err, codes.OutOfRange, "etcdserver: too large lease TTL")
	e.check("the largest", e.grant(9_000_000_000, 0).TTL, 9_000_000_000)
}

func TestLeaseTimeToLiveAndKeys(t *testing.T) {
	e := setup(t)
	id := e.grant(100, 0).ID
	other := e.grant(100, 0).ID
	e.putLease("b", "", id)
	e.putLease("a", "", id)
	e.putLease("c", "", id)
	r := e.timeToLive(id, false)
	e.check("granted", []any{r.ID, r.GrantedTTL, len(r.Keys)}, []any{id, 100, 0})
	if r.TTL < 90 || r.TTL > 100 {
		t.Fatalf("remaining %d of 100 s", r.TTL)
	}
	names := func(id int64) string {
		seen := map[string]bool{}
		for _, key := range e.timeToLive(id, true).Keys {
			seen[string(key[len(e.prefix):])] = true
		}
		return fmt.Sprint(seen)
	}
	e.check("keys", names(id), "map[a:true b:true c:true]")
	e.putLease("a", "", other)
	e.put("b", "")
	e.delete("c")
	e.check("moved, detached, deleted", names(id), "map[]")
	e.check("moved to", names(other), "map[a:true]")

	unknown := e.timeToLive(1234567, true)
	e.check("unknown is no error", []any{unknown.TTL, unknown.GrantedTTL, len(unknown.Keys)}, []any{-1, 0, 0})
}

func TestLeaseRevoke(t *testing.T) {
	e := setup(t)
	id := e.grant(100, 0).ID
	for _, name := range []string{"c", "a", "b"} {
		e.putLease(name, "x", id)
	}
	s := e.openStream()
	s.watch(e.all())
	before := e.revision()
	r, err := e.leases().LeaseRevoke(e.ctx, &pb.LeaseRevokeRequest{ID: id})
	e.ok(err)
	e.check("one revision", r.Header.Revision, before+1)
	e.check("sorted deletes", e.describe(before, s.events(3)), "DELETE a@1, DELETE b@1, DELETE c@1")
	_, err = e.leases().LeaseRevoke(e.ctx, &pb.LeaseRevokeRequest{ID: id})
	target.WantStatus(t, err, codes.NotFound, "etcdserver: requested lease not found")
	_, err = e.kv.Put(e.ctx, &pb.PutRequest{Key: e.key("k"), Lease: id})
	target.WantStatus(t, err, codes.NotFound, "etcdserver: requested lease not found")
	empty := e.grant(100, 0).ID
	r, err = e.leases().LeaseRevoke(e.ctx, &pb.LeaseRevokeRequest{ID: empty})
	e.ok(err)
	e.check("without keys no revision", r.Header.Revision, before+1)
}

func TestLeaseList(t *testing.T) {
	e := setup(t)
	want := map[int64]bool{e.grant(100, 0).ID: true, e.grant(200, 0).ID: true}
	gone := e.grant(300, 0).ID
	_, err := e.client.Revoke(e.ctx, clientv3.LeaseID(gone))
	e.ok(err)
	r, err := e.leases().LeaseLeases(e.ctx, &pb.LeaseLeasesRequest{})
	e.ok(err)
	for _, lease := range r.Leases {
		delete(want, lease.ID)
		if lease.ID == gone {
			t.Fatal("a revoked lease is listed")
		}
	}
	e.check("all listed", len(want), 0)
}

func TestLeaseExpires(t *testing.T) {
	e := setup(t)
	s := e.openStream()
	request := e.all()
	request.PrevKv = true
	s.watch(request)
	start := time.Now()
	lease := e.grant(2, 0)
	for _, name := range []string{"c", "a", "b"} {
		e.putLease(name, "x", lease.ID)
	}
	before := e.revision()
	s.events(3)
	deletes := s.events(3)
	took := time.Since(start)
	e.check("one revision, sorted keys", e.describe(before, deletes), "DELETE a@1, DELETE b@1, DELETE c@1")
	e.check("prev_kv", string(deletes[0].PrevKv.Value), "x")
	if took < 1900*time.Millisecond || took > 6*time.Second {
		t.Fatalf("a TTL of 2 s took %s", took)
	}
	e.check("gone", e.timeToLive(lease.ID, false).TTL, -1)
	e.check("keys too", e.list(nil).Count, 0)
}

func TestLeaseKeepAlive(t *testing.T) {
	e := setup(t)
	lease := e.grant(2, 0)
	e.putLease("k", "", lease.ID)
	raw, err := e.leases().LeaseKeepAlive(e.ctx)
	e.ok(err)
	alive := func(id int64) *pb.LeaseKeepAliveResponse {
		e.ok(raw.Send(&pb.LeaseKeepAliveRequest{ID: id}))
		r, err := raw.Recv()
		e.ok(err)
		return r
	}
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(400 * time.Millisecond) {
		r := alive(lease.ID)
		e.check("renewed", []any{r.ID, r.TTL}, []any{lease.ID, 2})
	}
	e.check("still there", e.get("k") != nil, true)
	e.check("header", alive(lease.ID).Header.Revision, e.revision())
	e.check("unknown: TTL 0", alive(777777).TTL, 0)
	e.check("the stream lives on", alive(lease.ID).TTL, 2)
	_, err = e.client.Revoke(e.ctx, clientv3.LeaseID(lease.ID))
	e.ok(err)
	e.check("revoked: TTL 0", alive(lease.ID).TTL, 0)
	_, err = e.client.KeepAliveOnce(e.ctx, 777777)
	e.check("clientv3", err, "etcdserver: requested lease not found")
}

func TestLeaseManyKeepAlives(t *testing.T) {
	e := setup(t)
	var channels []<-chan *clientv3.LeaseKeepAliveResponse
	for i := 0; i < 50; i++ {
		c, err := e.client.KeepAlive(e.ctx, clientv3.LeaseID(e.grant(3, 0).ID))
		e.ok(err)
		channels = append(channels, c)
	}
	for _, c := range channels {
		for i := 0; i < 3; i++ {
			r := <-c
			if r == nil || r.TTL != 3 {
				t.Fatalf("keep-alive %v", r)
			}
		}
	}
}

func TestLeaseInTxn(t *testing.T) {
	e := setup(t)
	id := e.grant(100, 0).ID
	e.txn(&pb.TxnRequest{Success: []*pb.RequestOp{
		{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: e.key("k"), Lease: id}}},
	}})
	e.check("attached", len(e.timeToLive(id, true).Keys), 1)
	e.holds("compare", true, cmpLease(e.key("k"), equal, id))
	e.txn(&pb.TxnRequest{Success: []*pb.RequestOp{opDelete(e.key("k"), nil)}})
	e.check("detached", len(e.timeToLive(id, true).Keys), 0)
}
