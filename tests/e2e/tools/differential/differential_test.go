// Package differential sends one random sequence of requests to two fresh servers, ours and a real etcd, and wants
// the same answers, the same history and the same hash. E2E_SEED repeats a run.
package differential

import (
	"context"
	"fmt"
	"math/rand"
	"os"
	"sort"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"garboard.dev/tests/e2e/tools/target"
)

// side is one of the two servers.
type side struct {
	kv          pb.KVClient
	lease       pb.LeaseClient
	watch       pb.WatchClient
	maintenance pb.MaintenanceClient
	auth        pb.AuthClient
	conn        *grpc.ClientConn
}

func connect(t *testing.T, endpoint string) *side {
	conn := target.Dial(t, endpoint).ActiveConnection()
	return &side{
		pb.NewKVClient(conn), pb.NewLeaseClient(conn), pb.NewWatchClient(conn), pb.NewMaintenanceClient(conn), pb.NewAuthClient(conn), conn,
	}
}

// newTwins connects to both servers for at most two minutes.
func newTwins(t *testing.T, seed int64) *twins {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return &twins{
		T: t, ctx: ctx, random: rand.New(rand.NewSource(seed)), compactions: map[int64]bool{},
		ours: connect(t, target.Endpoint(t)), reference: connect(t, target.ReferenceEndpoint(t)),
	}
}

type twins struct {
	*testing.T
	ctx             context.Context
	ours, reference *side
	random          *rand.Rand
	step            int
	revision        int64
	compacted       int64
	compactions     map[int64]bool
	leases          []int64
	events          int
	keepsKeys       bool // the transaction being made deletes nothing
}

func TestSameAsReference(t *testing.T) {
	seed := time.Now().UnixNano()
	if s := os.Getenv("E2E_SEED"); s != "" {
		seed, _ = strconv.ParseInt(s, 10, 64)
	}
	steps := 6000
	if s := os.Getenv("E2E_STEPS"); s != "" {
		steps, _ = strconv.Atoi(s)
	}
	t.Logf("E2E_SEED=%d", seed)
	w := newTwins(t, seed)
	w.hash(0)
	if w.revision != 1 {
		t.Fatalf("the servers must be fresh, they are at revision %d", w.revision)
	}
	for w.step = 1; w.step <= steps; w.step++ {
		w.one()
	}
	w.history()
	w.hash(0)
	w.compact(w.revision, true)
	w.hash(0)
	t.Logf("%d revisions, %d events compared", w.revision, w.events)
}

// one sends one random request to both.
func (w *twins) one() {
	switch n := w.random.Intn(100); {
	case n < 30:
		r := w.putRequest()
		w.compare(r, func(s *side) (message, error) { return s.kv.Put(w.ctx, r) })
	case n < 50:
		r := w.rangeRequest()
		w.compare(r, func(s *side) (message, error) {
			got, err := s.kv.Range(w.ctx, r)
			if got != nil && r.SortTarget != pb.RangeRequest_KEY {
				// Ties have no order, and with a limit the set differs too.
				sort.Slice(got.Kvs, func(i, j int) bool { return string(got.Kvs[i].Key) < string(got.Kvs[j].Key) })
			}
			return got, err
		})
	case n < 60:
		r := w.deleteRequest()
		w.compare(r, func(s *side) (message, error) { return s.kv.DeleteRange(w.ctx, r) })
	case n < 85:
		r := w.txnRequest(0)
		w.compare(r, func(s *side) (message, error) { return s.kv.Txn(w.ctx, r) })
	case n < 93:
		w.leaseStep()
	case n < 94:
		revision := w.compacted + w.random.Int63n(w.revision-w.compacted+3) - 1
		if w.compacted == 0 && revision == 0 {
			// etcd would keep the hash of "compaction at 0" and from then on answer it to HashKV of revision 0, the current one.
			revision = 1
		}
		w.compact(revision, w.random.Intn(2) == 0)
	case n < 97:
		if w.random.Intn(3) == 0 {
			revision := w.someRevision()
			if w.compactions[revision] {
				// etcd keeps the hashes that its last ten compactions made, until it is restarted: another hash of the same revision.
				revision = 0
			}
			w.hash(revision)
		} else {
			w.hash(0)
		}
	default:
		if w.step%50 == 0 {
			r := &pb.DefragmentRequest{}
			w.compare(r, func(s *side) (message, error) { return s.maintenance.Defragment(w.ctx, r) })
		}
	}
}

type message interface {
	String() string
	GetHeader() *pb.ResponseHeader
}

func (w *twins) compare(request fmt.Stringer, call func(*side) (message, error)) {
	w.Helper()
	show := func(s *side) (string, int64) {
		m, err := call(s)
		if err != nil {
			st := status.Convert(err)
			return fmt.Sprintf("%s %q", st.Code(), st.Message()), 0
		}
		header := m.GetHeader()
		if header == nil {
			return m.String(), 0
		}
		header.ClusterId, header.MemberId, header.RaftTerm = 0, 0, 0
		return m.String(), header.Revision
	}
	want, revision := show(w.reference)
	if got, _ := show(w.ours); got != want {
		w.Fatalf("step %d: %T %v\n got: %.2000s\nwant: %.2000s", w.step, request, request, got, want)
	}
	w.revision = max(w.revision, revision)
}

func (w *twins) hash(revision int64) {
	w.Helper()
	r := &pb.HashKVRequest{Revision: revision}
	w.compare(r, func(s *side) (message, error) { return s.maintenance.HashKV(w.ctx, r) })
}

func (w *twins) compact(revision int64, physical bool) {
	w.Helper()
	if revision > w.compacted {
		w.history()
	}
	r := &pb.CompactionRequest{Revision: revision, Physical: physical}
	w.compare(r, func(s *side) (message, error) {
		got, err := s.kv.Compact(w.ctx, r)
		if err == nil {
			w.compacted, w.compactions[revision] = revision, true
		}
		return got, err
	})
}

// history compares all events since the last compaction.
func (w *twins) history() {
	w.Helper()
	if w.revision <= max(w.compacted, 1) { // revision 1 is the empty store
		return
	}
	events := func(s *side) (out []string) {
		ctx, cancel := context.WithCancel(w.ctx)
		defer cancel()
		stream, err := s.watch.Watch(ctx, grpc.MaxCallRecvMsgSize(1<<30))
		if err != nil {
			w.Fatal(err)
		}
		create := &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: w.compacted + 1, PrevKv: true}
		if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
			w.Fatal(err)
		}
		last := int64(0)
		for last < w.revision {
			r, err := stream.Recv()
			if err != nil || r.Canceled {
				w.Fatalf("watch from %d has reached %d of %d: %v %v", w.compacted+1, last, w.revision, r, err)
			}
			for _, event := range r.Events {
				out = append(out, event.String())
				last = event.Kv.ModRevision
			}
		}
		return out
	}
	want, got := events(w.reference), events(w.ours)
	if len(got) != len(want) {
		w.Fatalf("%d events since %d, want %d", len(got), w.compacted, len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			w.Fatalf("event %d\n got: %s\nwant: %s", i, got[i], want[i])
		}
	}
	w.events += len(want)
}

func (w *twins) leaseStep() {
	switch n := w.random.Intn(10); {
	case n < 5:
		r := &pb.LeaseGrantRequest{ID: w.random.Int63n(40) + 1, TTL: 3600}
		w.compare(r, func(s *side) (message, error) { return s.lease.LeaseGrant(w.ctx, r) })
		w.leases = append(w.leases, r.ID)
	case n < 7:
		r := &pb.LeaseRevokeRequest{ID: w.someLease()}
		w.compare(r, func(s *side) (message, error) { return s.lease.LeaseRevoke(w.ctx, r) })
	default:
		r := &pb.LeaseTimeToLiveRequest{ID: w.someLease(), Keys: true}
		w.compare(r, func(s *side) (message, error) {
			got, err := s.lease.LeaseTimeToLive(w.ctx, r)
			if err == nil {
				if got.TTL > 0 {
					got.TTL = 1
				}
				sort.Slice(got.Keys, func(i, j int) bool { return string(got.Keys[i]) < string(got.Keys[j]) })
			}
			return got, err
		})
	}
}
