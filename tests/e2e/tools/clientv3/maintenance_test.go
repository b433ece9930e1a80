package clientv3

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"garboard.dev/tests/e2e/tools/target"
)

func (e *env) maintenance() pb.MaintenanceClient {
	return pb.NewMaintenanceClient(e.client.ActiveConnection())
}

func (e *env) status() *pb.StatusResponse {
	e.Helper()
	r, err := e.maintenance().Status(e.ctx, &pb.StatusRequest{})
	e.ok(err)
	return r
}

func TestStatus(t *testing.T) {
	e := setup(t)
	rev := e.put("k", strings.Repeat("x", 10_000))
	r := e.status()
	if !regexp.MustCompile(`^3\.[67]\.\d+$`).MatchString(r.Version) {
		t.Fatalf("version %q", r.Version)
	}
	if !regexp.MustCompile(`^3\.[67]\.0$`).MatchString(r.StorageVersion) {
		t.Fatalf("storage version %q", r.StorageVersion)
	}
	e.check("header", []any{r.Header.Revision, r.Header.MemberId != 0, r.Header.ClusterId != 0}, []any{rev, true, true})
	e.check("it leads itself", []any{r.Leader, r.IsLearner}, []any{r.Header.MemberId, false})
	e.check("term", r.RaftTerm, r.Header.RaftTerm)
	if r.RaftIndex == 0 || r.RaftAppliedIndex == 0 || r.RaftAppliedIndex > r.RaftIndex {
		t.Fatalf("raft index %d, applied %d", r.RaftIndex, r.RaftAppliedIndex)
	}
	if r.DbSize < r.DbSizeInUse || r.DbSizeInUse < 10_000 {
		t.Fatalf("db size %d, in use %d", r.DbSize, r.DbSizeInUse)
	}
	e.check("quota", r.DbSizeQuota, int64(2)<<30)
	e.check("no errors", len(r.Errors), 0)
	before := r.RaftAppliedIndex
	e.put("k", "2")
	// A put is answered a moment before the index that status shows moves.
	for deadline := time.Now().Add(10 * time.Second); e.status().RaftAppliedIndex <= before; {
		if time.Now().After(deadline) {
			t.Fatalf("applied index stays at %d", before)
		}
	}
}

func TestMemberList(t *testing.T) {
	e := setup(t)
	for _, linearizable := range []bool{false, true} {
		r, err := pb.NewClusterClient(e.client.ActiveConnection()).MemberList(e.ctx, &pb.MemberListRequest{Linearizable: linearizable})
		e.ok(err)
		e.check("one member", len(r.Members), 1)
		m := r.Members[0]
		e.check("self", m.ID, r.Header.MemberId)
		if m.Name == "" || len(m.PeerURLs) == 0 || len(m.ClientURLs) == 0 || m.IsLearner {
			t.Fatalf("member %v", m)
		}
	}
}

func TestHealthService(t *testing.T) {
	e := setup(t)
	r, err := grpc_health_v1.NewHealthClient(e.client.ActiveConnection()).Check(e.ctx, &grpc_health_v1.HealthCheckRequest{})
	e.ok(err)
	e.check("serving", r.Status, grpc_health_v1.HealthCheckResponse_SERVING)
}

func (e *env) alarm(action pb.AlarmRequest_AlarmAction, alarm pb.AlarmType, member uint64) []*pb.AlarmMember {
	e.Helper()
	r, err := e.maintenance().Alarm(e.ctx, &pb.AlarmRequest{Action: action, Alarm: alarm, MemberID: member})
	e.ok(err)
	return r.Alarms
}

func TestAlarmNoSpace(t *testing.T) {
	e := setup(t)
	e.put("k", "1")
	lease := e.grant(100, 0).ID
	member := e.status().Header.MemberId
	e.check("none", len(e.alarm(pb.AlarmRequest_GET, pb.AlarmType_NONE, 0)), 0)
	raised := e.alarm(pb.AlarmRequest_ACTIVATE, pb.AlarmType_NOSPACE, member)
	e.Cleanup(func() { e.alarm(pb.AlarmRequest_DEACTIVATE, pb.AlarmType_NOSPACE, member) })
	e.check("raised", []any{raised[0].MemberID, raised[0].Alarm}, []any{member, pb.AlarmType_NOSPACE})
	e.check("listed", len(e.alarm(pb.AlarmRequest_GET, pb.AlarmType_NONE, 0)), 1)
	e.check("in status", strings.Contains(strings.Join(e.status().Errors, ""), "NOSPACE"), true)

	const text = "etcdserver: mvcc: database space exceeded"
	_, err := e.kv.Put(e.ctx, &pb.PutRequest{Key: e.key("k"), Value: []byte("2")})
	target.WantStatus(t, err, codes.ResourceExhausted, text)
	_, err = e.kv.Txn(e.ctx, &pb.TxnRequest{Success: []*pb.RequestOp{opPut(e.key("k"), "2")}})
	target.WantStatus(t, err, codes.ResourceExhausted, text)
	_, err = e.kv.Txn(e.ctx, &pb.TxnRequest{Success: []*pb.RequestOp{opDelete(e.key("x"), nil)}, Failure: []*pb.RequestOp{opPut(e.key("k"), "2")}})
	target.WantStatus(t, err, codes.ResourceExhausted, text)
	_, err = e.leases().LeaseGrant(e.ctx, &pb.LeaseGrantRequest{TTL: 100})
	target.WantStatus(t, err, codes.ResourceExhausted, text)

	e.check("reads go on", string(e.get("k").Value), "1")
	e.txn(&pb.TxnRequest{Success: []*pb.RequestOp{opGet(e.key("k"))}})
	e.txn(&pb.TxnRequest{Success: []*pb.RequestOp{opDelete(e.key("k"), nil)}})
	e.delete("k")
	e.compact(e.revision())
	_, err = e.leases().LeaseRevoke(e.ctx, &pb.LeaseRevokeRequest{ID: lease})
	e.ok(err)
	_, err = e.maintenance().Defragment(e.ctx, &pb.DefragmentRequest{})
	e.ok(err)

	e.check("cleared", len(e.alarm(pb.AlarmRequest_DEACTIVATE, pb.AlarmType_NOSPACE, member)), 1)
	e.check("none left", len(e.alarm(pb.AlarmRequest_GET, pb.AlarmType_NONE, 0)), 0)
	e.put("k", "3")
}

func TestAlarmCorrupt(t *testing.T) {
	e := setup(t)
	e.put("k", "1")
	lease := e.grant(100, 0).ID
	member := e.status().Header.MemberId
	e.alarm(pb.AlarmRequest_ACTIVATE, pb.AlarmType_CORRUPT, member)
	e.Cleanup(func() { e.alarm(pb.AlarmRequest_DEACTIVATE, pb.AlarmType_CORRUPT, member) })
	const text = "etcdserver: corrupt cluster"
	calls := map[string]func() error{
		"put":    func() error { _, err := e.kv.Put(e.ctx, &pb.PutRequest{Key: e.key("k")}); return err },
		"delete": func() error { _, err := e.kv.DeleteRange(e.ctx, &pb.DeleteRangeRequest{Key: e.key("k")}); return err },
		"txn": func() error {
			_, err := e.kv.Txn(e.ctx, &pb.TxnRequest{Success: []*pb.RequestOp{opPut(e.key("k"), "")}})
			return err
		},
		"compact": func() error { _, err := e.kv.Compact(e.ctx, &pb.CompactionRequest{Revision: 1}); return err },
		"grant":   func() error { _, err := e.leases().LeaseGrant(e.ctx, &pb.LeaseGrantRequest{TTL: 10}); return err },
		"revoke":  func() error { _, err := e.leases().LeaseRevoke(e.ctx, &pb.LeaseRevokeRequest{ID: lease}); return err },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) { target.WantStatus(t, call(), codes.DataLoss, text) })
	}
	e.alarm(pb.AlarmRequest_DEACTIVATE, pb.AlarmType_CORRUPT, member)
	e.put("k", "2")
}

func TestHashKV(t *testing.T) {
	e := setup(t)
	hash := func(rev int64) (*pb.HashKVResponse, error) {
		return e.maintenance().HashKV(e.ctx, &pb.HashKVRequest{Revision: rev})
	}
	at := func(rev int64) *pb.HashKVResponse {
		r, err := hash(rev)
		e.ok(err)
		return r
	}
	r1 := e.put("k", "1")
	first := at(0)
	e.check("current", []any{first.HashRevision, first.Header.Revision}, []any{r1, r1})
	r2 := e.put("k", "2")
	e.check("a fixed revision keeps its number", at(r1).Hash, first.Hash)
	if at(r2).Hash == first.Hash {
		t.Fatal("another revision has the same hash")
	}
	_, err := hash(r2 + 1000)
	target.WantStatus(t, err, codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision")
	e.compact(r2)
	if got := at(r2); got.CompactRevision != r2 {
		t.Fatalf("compact revision %d, want %d", got.CompactRevision, r2)
	}
	_, err = hash(r1)
	target.WantStatus(t, err, codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted")

	whole, err := e.maintenance().Hash(e.ctx, &pb.HashRequest{})
	e.ok(err)
	e.check("hash of all", whole.Header.Revision, r2)
}

// Defragment is done while clients read and write; nothing fails and nothing is lost.
func TestDefragmentUnderLoad(t *testing.T) {
	e := setup(t)
	value := strings.Repeat("d", 4<<10)
	for i := 0; i < 1500; i++ {
		e.put(fmt.Sprintf("old%d", i%100), value)
	}
	e.compact(e.revision())
	ctx, stop := context.WithCancel(e.ctx)
	var load sync.WaitGroup
	written := make([]int, 4)
	for w := range written {
		load.Add(1)
		go func() {
			defer load.Done()
			for ; ctx.Err() == nil; written[w]++ {
				key := e.key(fmt.Sprintf("w%d", w))
				if _, err := e.kv.Put(e.ctx, &pb.PutRequest{Key: key, Value: []byte(fmt.Sprint(written[w]))}); err != nil {
					t.Errorf("put during defragment: %v", err)
					return
				}
				r, err := e.kv.Range(e.ctx, &pb.RangeRequest{Key: key})
				if err != nil || len(r.Kvs) != 1 || string(r.Kvs[0].Value) != fmt.Sprint(written[w]) {
					t.Errorf("get during defragment: %v %v", r, err)
					return
				}
			}
		}()
	}
	for i := 0; i < 5; i++ {
		if _, err := e.maintenance().Defragment(e.ctx, &pb.DefragmentRequest{}); err != nil {
			t.Errorf("defragment: %v", err)
		}
	}
	stop()
	load.Wait()
	for w, n := range written {
		if n == 0 {
			t.Errorf("writer %d did nothing", w)
			continue
		}
		e.check("last value", string(e.get(fmt.Sprintf("w%d", w)).Value), fmt.Sprint(n-1))
	}
	e.check("old keys", e.list(func(r *pb.RangeRequest) { r.Key, r.RangeEnd = e.key("old"), e.key("ole") }).Count, 100)
	if s := e.status(); s.DbSize < s.DbSizeInUse {
		t.Errorf("size %d, in use %d", s.DbSize, s.DbSizeInUse)
	}
}
