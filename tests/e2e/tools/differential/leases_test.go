package differential

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func leaseEdges() []edge {
	return []edge{
		{"without a TTL", &pb.LeaseGrantRequest{ID: 7001}},
		{"a negative TTL", &pb.LeaseGrantRequest{ID: 7002, TTL: -3}},
		{"less than the least TTL", &pb.LeaseGrantRequest{ID: 7011, TTL: 1}},
		{"what is left of it", &pb.LeaseTimeToLiveRequest{ID: 7011}},
		{"the least TTL", &pb.LeaseGrantRequest{ID: 7012, TTL: 2}},
		{"more than the least", &pb.LeaseGrantRequest{ID: 7013, TTL: 3}},
		{"kept alive", &pb.LeaseKeepAliveRequest{ID: 7011}},
		{"too large a TTL", &pb.LeaseGrantRequest{ID: 7003, TTL: 9_000_000_001}},
		{"the largest TTL", &pb.LeaseGrantRequest{ID: 7004, TTL: 9_000_000_000}},
		{"the largest TTL kept alive", &pb.LeaseKeepAliveRequest{ID: 7004}},
		{"one that exists", &pb.LeaseGrantRequest{ID: 7004, TTL: 60}},
		{"one that exists, with too large a TTL", &pb.LeaseGrantRequest{ID: 7004, TTL: 9_000_000_001}},
		{"a negative id", &pb.LeaseGrantRequest{ID: -7, TTL: 3600}},
		{"attach", leased("lease/a", 7004)},
		{"attach to a negative id", leased("lease/n", -7)},
		{"attach in a transaction", then(leased("lease/t", 7004), leased("lease/u", 7004))},
		{"keys of it", &pb.LeaseTimeToLiveRequest{ID: 7004, Keys: true}},
		{"keys not asked for", &pb.LeaseTimeToLiveRequest{ID: 7004}},
		{"attach to another", leased("lease/u", -7)},
		{"detach", put("lease/a", "2")},
		{"keep the lease", changed(put("lease/t", "3"), func(r *pb.PutRequest) { r.IgnoreLease = true })},
		{"keep the value", changed(leased("lease/t", -7), func(r *pb.PutRequest) { r.IgnoreValue, r.Value = true, nil })},
		{"keys left", &pb.LeaseTimeToLiveRequest{ID: 7004, Keys: true}},
		{"keys of the other", &pb.LeaseTimeToLiveRequest{ID: -7, Keys: true}},
		{"delete a key of it", del("lease/n", "")},
		{"keys of the other then", &pb.LeaseTimeToLiveRequest{ID: -7, Keys: true}},
		{"all leases", &pb.LeaseLeasesRequest{}},
		{"revoke an unknown one", &pb.LeaseRevokeRequest{ID: 424242}},
		{"revoke lease 0", &pb.LeaseRevokeRequest{}},
		{"revoke one without keys", &pb.LeaseRevokeRequest{ID: 7004}},
		{"revoke one with keys", &pb.LeaseRevokeRequest{ID: -7}},
		{"revoke it again", &pb.LeaseRevokeRequest{ID: -7}},
		{"what is left", get("lease/", "lease0")},
		{"an unknown one's time to live", &pb.LeaseTimeToLiveRequest{ID: 424242, Keys: true}},
		{"an unknown one kept alive", &pb.LeaseKeepAliveRequest{ID: 424242}},
		{"time to live of lease 0", &pb.LeaseTimeToLiveRequest{}},
		{"granted again", &pb.LeaseGrantRequest{ID: 7004, TTL: 60}},
		{"and without its old keys", &pb.LeaseTimeToLiveRequest{ID: 7004, Keys: true}},
	}
}

// TestLeaseEdges keeps the default election timeout, of which the least TTL is made.
func TestLeaseEdges(t *testing.T) { same(t, nil, leaseEdges()) }

// TestLeaseExpires compares what a watcher is told of a lease's end: one revision, the keys in their order.
func TestLeaseExpires(t *testing.T) {
	p := startPair(t, fast)
	defer p.stop()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ours, reference := both(p, func(s *side) []string {
		return talk(ctx, s, func(c *conversation) {
			c.send(on("talk/", prefixed, func(r *pb.WatchCreateRequest) { r.PrevKv = true }))
			c.hear(1)
			c.ask(&pb.LeaseGrantRequest{ID: 50, TTL: 1}, &pb.LeaseGrantRequest{ID: 51, TTL: 3600})
			c.ask(leased("talk/c", 50), leased("talk/a", 50), leased("talk/d", 50), leased("talk/b", 50), leased("talk/d", 51))
			c.hear(5)
			c.hear(1) // the end
			c.ask(get("talk/", "talk0"), &pb.LeaseTimeToLiveRequest{ID: 50, Keys: true}, &pb.LeaseKeepAliveRequest{ID: 50},
				&pb.LeaseRevokeRequest{ID: 50}, &pb.LeaseLeasesRequest{}, &pb.HashKVRequest{})
		})
	})
	if !slices.Equal(ours, reference) {
		t.Errorf("\n got: %s\nwant: %s", strings.Join(ours, "\n      "), strings.Join(reference, "\n      "))
	}
}

// TestLeaseIDs are chosen by the server when the client does not.
func TestLeaseIDs(t *testing.T) {
	p := startPair(t, fast)
	defer p.stop()
	for _, s := range []*side{p.ours, p.reference} {
		seen := map[int64]bool{0: true}
		for range 20 {
			granted, err := s.lease.LeaseGrant(t.Context(), &pb.LeaseGrantRequest{TTL: 100})
			if err != nil {
				t.Fatal(err)
			}
			if granted.ID < 0 || seen[granted.ID] || granted.TTL != 100 {
				t.Errorf("%s: %v", s.conn.Target(), granted)
			}
			seen[granted.ID] = true
		}
	}
}
