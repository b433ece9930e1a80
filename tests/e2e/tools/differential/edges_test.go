package differential

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// edge is one request at the edge of what is allowed, sent to both servers after all before it.
type edge struct {
	name    string
	request fmt.Stringer
}

func put(key, value string) *pb.PutRequest {
	return &pb.PutRequest{Key: []byte(key), Value: []byte(value)}
}

func del(key, end string) *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)}
}

func get(key, end string) *pb.RangeRequest {
	return &pb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end)}
}

func opOf(request any) *pb.RequestOp {
	switch r := request.(type) {
	case *pb.PutRequest:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
	case *pb.DeleteRangeRequest:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}
	case *pb.RangeRequest:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
	case *pb.TxnRequest:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r}}
	default:
		return &pb.RequestOp{}
	}
}

func then(requests ...any) *pb.TxnRequest {
	txn := &pb.TxnRequest{}
	for _, request := range requests {
		txn.Success = append(txn.Success, opOf(request))
	}
	return txn
}

func when(compare *pb.Compare, requests ...any) *pb.TxnRequest {
	txn := then(requests...)
	txn.Compare = []*pb.Compare{compare}
	return txn
}

func many(n int) (txn *pb.TxnRequest) {
	txn = &pb.TxnRequest{}
	for i := 0; i < n; i++ {
		txn.Success = append(txn.Success, opOf(put(fmt.Sprintf("edge/many/%03d", i), "v")))
	}
	return txn
}

func nested(depth int, inner *pb.TxnRequest) *pb.TxnRequest {
	for ; depth > 0; depth-- {
		inner = then(inner)
	}
	return inner
}

func edges() []edge {
	with := func(r *pb.RangeRequest, change func(*pb.RangeRequest)) *pb.RangeRequest { change(r); return r }
	changed := func(r *pb.PutRequest, change func(*pb.PutRequest)) *pb.PutRequest { change(r); return r }
	value := func(s string) *pb.Compare_Value { return &pb.Compare_Value{Value: []byte(s)} }
	key := []byte("edge/a")
	manyCompares := &pb.TxnRequest{}
	for i := 0; i < 129; i++ {
		manyCompares.Compare = append(manyCompares.Compare, &pb.Compare{Key: key})
	}
	return []edge{
		{"put", put("edge/a", "1")},
		{"put again", put("edge/a", "2")},
		{"put b", put("edge/b", "1")},
		{"put without a key", put("", "v")},
		{"put an empty value", put("edge/empty", "")},
		{"ignore_value with a value", changed(put("edge/a", "v"), func(r *pb.PutRequest) { r.IgnoreValue = true })},
		{"ignore_value of a missing key", changed(put("edge/none", ""), func(r *pb.PutRequest) { r.IgnoreValue = true })},
		{"ignore_value", changed(put("edge/a", ""), func(r *pb.PutRequest) { r.IgnoreValue, r.PrevKv = true, true })},
		{"ignore_lease with a lease", changed(put("edge/a", "v"), func(r *pb.PutRequest) { r.IgnoreLease, r.Lease = true, 7 })},
		{"ignore_lease of a missing key", changed(put("edge/none", "v"), func(r *pb.PutRequest) { r.IgnoreLease = true })},
		{"unknown lease", changed(put("edge/a", "v"), func(r *pb.PutRequest) { r.Lease = 424242 })},
		{"negative lease", changed(put("edge/a", "v"), func(r *pb.PutRequest) { r.Lease = -1 })},
		{"too large a value", put("edge/a", strings.Repeat("v", 1536<<10))},
		{"a large key", put("edge/"+strings.Repeat("k", 64<<10), "v")},
		{"a key of zeros", put("\x00\x00", "v")},
		{"a key of 0xff", put("\xff\xff", "v")},

		{"range without a key", get("", "")},
		{"range without a key to the end", get("", "\x00")},
		{"end before the key", get("edge/b", "edge/a")},
		{"end equal to the key", get("edge/a", "edge/a")},
		{"from the key on", with(get("edge/", "\x00"), func(r *pb.RangeRequest) { r.Limit, r.KeysOnly = 3, true })},
		{"negative limit", with(get("edge/", "edge0"), func(r *pb.RangeRequest) { r.Limit, r.KeysOnly = -1, true })},
		{"negative revision", with(get("edge/a", ""), func(r *pb.RangeRequest) { r.Revision = -5 })},
		{"revision ahead", with(get("edge/a", ""), func(r *pb.RangeRequest) { r.Revision = 1 << 40 })},
		{"revision 1", with(get("edge/a", ""), func(r *pb.RangeRequest) { r.Revision = 1 })},
		{"unknown sort order", with(get("edge/a", ""), func(r *pb.RangeRequest) { r.SortOrder = 9 })},
		{"unknown sort target", with(get("edge/a", ""), func(r *pb.RangeRequest) { r.SortTarget = 9 })},
		{"negative sort order", with(get("edge/a", ""), func(r *pb.RangeRequest) { r.SortOrder = -1 })},
		{"sort by value, no order", with(get("edge/a", "edge/c"), func(r *pb.RangeRequest) { r.SortTarget = pb.RangeRequest_VALUE })},
		{"sorted down with a limit", with(get("edge/a", "edge/c"), func(r *pb.RangeRequest) { r.SortOrder, r.Limit = pb.RangeRequest_DESCEND, 1 })},
		{"count and keys only", with(get("edge/a", "edge/c"), func(r *pb.RangeRequest) { r.CountOnly, r.KeysOnly = true, true })},
		{"count with a limit", with(get("edge/a", "edge/c"), func(r *pb.RangeRequest) { r.CountOnly, r.Limit = true, 1 })},
		{"mod filter", with(get("edge/a", "edge/c"), func(r *pb.RangeRequest) { r.MinModRevision = 1 << 40 })},
		{"filters that exclude each other", with(get("edge/a", "edge/c"), func(r *pb.RangeRequest) { r.MinCreateRevision, r.MaxCreateRevision = 9, 3 })},
		{"filter with a limit", with(get("edge/a", "edge/c"), func(r *pb.RangeRequest) { r.MinModRevision, r.Limit = 2, 1 })},
		{"negative filter", with(get("edge/a", "edge/c"), func(r *pb.RangeRequest) { r.MaxModRevision = -1 })},

		{"delete without a key", del("", "")},
		{"delete nothing", del("edge/none", "")},
		{"delete with the end before the key", del("edge/b", "edge/a")},

		{"empty transaction", &pb.TxnRequest{}},
		{"128 operations", many(128)},
		{"129 operations", many(129)},
		{"129 compares", manyCompares},
		{"an operation that is none", &pb.TxnRequest{Success: []*pb.RequestOp{{}}}},
		{"a key put twice", then(put("edge/t", "1"), put("edge/t", "2"))},
		{"a key put twice in both branches", &pb.TxnRequest{Success: then(put("edge/t", "1")).Success, Failure: then(put("edge/t", "2")).Success}},
		{"a key put twice, once nested", then(put("edge/t", "1"), then(put("edge/t", "2")))},
		{"a key put twice in the branch not taken", &pb.TxnRequest{Failure: then(put("edge/t", "1"), put("edge/t", "2")).Success}},
		{"put and deletion of a key", then(put("edge/t", "1"), del("edge/t", ""))},
		{"put and deletion of its range", then(del("edge/", "edge0"), put("edge/t", "1"))},
		{"put and nested deletion of its range", then(put("edge/t", "1"), then(del("edge/t", "edge/u")))},
		{"two deletions of a key", then(del("edge/many/001", ""), del("edge/many/001", ""))},
		{"overlapping deletions", then(del("edge/many/002", "edge/many/005"), del("edge/many/003", "edge/many/009"))},
		{"a read of what was just put", then(put("edge/t", "seen"), get("edge/t", ""))},
		{"a read ahead in a branch taken", then(put("edge/t", "1"), &pb.RangeRequest{Key: key, Revision: 1 << 40})},
		{"a read ahead in a branch not taken", &pb.TxnRequest{Failure: then(&pb.RangeRequest{Key: key, Revision: 1 << 40}).Success}},
		{"an unknown lease inside", then(put("edge/u", "1"), changed(put("edge/t", "1"), func(r *pb.PutRequest) { r.Lease = 424242 }))},
		{"ignore_value of a missing key inside", then(put("edge/u", "1"), changed(put("edge/none", ""), func(r *pb.PutRequest) { r.IgnoreValue = true }))},
		{"an empty key inside", then(put("", "1"))},
		{"an empty key deleted inside", then(del("", ""))},
		{"an empty key read inside", then(get("", ""))},
		{"an empty key compared", when(&pb.Compare{}, put("edge/t", "1"))},
		{"unknown compare result", when(&pb.Compare{Key: key, Result: 9}, put("edge/t", "1"))},
		{"unknown compare target", when(&pb.Compare{Key: key, Target: 9}, put("edge/t", "1"))},
		{"compare target without its value", when(&pb.Compare{Key: key, Target: pb.Compare_MOD}, put("edge/t", "1"))},
		{"compare target with another's value", when(&pb.Compare{Key: key, Target: pb.Compare_MOD, TargetUnion: value("1")}, put("edge/t", "1"))},
		{"value of a missing key equal", when(&pb.Compare{Key: []byte("edge/none"), Target: pb.Compare_VALUE, TargetUnion: value("")}, put("edge/t", "1"))},
		{"value of a missing key not equal", when(&pb.Compare{Key: []byte("edge/none"), Target: pb.Compare_VALUE, Result: pb.Compare_NOT_EQUAL, TargetUnion: value("x")}, put("edge/t", "1"))},
		{"version of a missing key", when(&pb.Compare{Key: []byte("edge/none"), Target: pb.Compare_VERSION, TargetUnion: &pb.Compare_Version{Version: 0}}, put("edge/t", "1"))},
		{"lease of a key without one", when(&pb.Compare{Key: key, Target: pb.Compare_LEASE, TargetUnion: &pb.Compare_Lease{Lease: 0}}, put("edge/t", "1"))},
		{"compare over a range", when(&pb.Compare{Key: key, RangeEnd: []byte("edge/c"), Target: pb.Compare_CREATE, Result: pb.Compare_GREATER, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: 0}}, put("edge/t", "1"))},
		{"compare over an empty range", when(&pb.Compare{Key: []byte("edge/none"), RangeEnd: []byte("edge/none0"), Target: pb.Compare_CREATE, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: 0}}, put("edge/t", "1"))},
		{"compare over an empty range with more", when(&pb.Compare{Key: []byte("edge/none"), RangeEnd: []byte("edge/none0"), Target: pb.Compare_CREATE, Result: pb.Compare_GREATER, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: 0}}, put("edge/t", "1"))},
		{"nested, three deep", nested(3, then(put("edge/deep", "1"), get("edge/deep", "")))},
		{"nested, with a failing compare", then(when(&pb.Compare{Key: key, Target: pb.Compare_VERSION, TargetUnion: &pb.Compare_Version{Version: 99}}, put("edge/deep", "2")))},

		{"lease without a TTL", &pb.LeaseGrantRequest{ID: 7001}},
		{"lease with a negative TTL", &pb.LeaseGrantRequest{ID: 7002, TTL: -3}},
		{"lease with too large a TTL", &pb.LeaseGrantRequest{ID: 7003, TTL: 9_000_000_001}},
		{"lease with the largest TTL", &pb.LeaseGrantRequest{ID: 7004, TTL: 9_000_000_000}},
		{"lease that exists", &pb.LeaseGrantRequest{ID: 7004, TTL: 60}},
		{"lease with a negative id", &pb.LeaseGrantRequest{ID: -7, TTL: 3600}},
		{"attach", changed(put("edge/leased", "1"), func(r *pb.PutRequest) { r.Lease = 7004 })},
		{"detach by a put", put("edge/leased", "2")},
		{"revoke an unknown lease", &pb.LeaseRevokeRequest{ID: 424242}},
		{"revoke lease 0", &pb.LeaseRevokeRequest{}},
		{"revoke", &pb.LeaseRevokeRequest{ID: 7004}},
		{"what the lease no longer held", get("edge/leased", "")},
		{"time to live of an unknown lease", &pb.LeaseTimeToLiveRequest{ID: 424242, Keys: true}},

		{"compact at 0", &pb.CompactionRequest{}},
		{"compact at a negative revision", &pb.CompactionRequest{Revision: -1}},
		{"compact ahead", &pb.CompactionRequest{Revision: 1 << 40}},
		{"hash ahead", &pb.HashKVRequest{Revision: 1 << 40}},
		{"hash of a negative revision", &pb.HashKVRequest{Revision: -1}},

		{"alarms", &pb.AlarmRequest{}},
		{"raise an alarm", &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE, MemberID: 5}},
		{"put with no space", put("edge/a", "nospace")},
		{"transaction with a put and no space", then(get("edge/a", ""), put("edge/a", "nospace"))},
		{"transaction with a put in the branch not taken and no space", &pb.TxnRequest{Success: then(get("edge/a", "")).Success, Failure: then(put("edge/a", "x")).Success}},
		{"deletion with no space", del("edge/b", "")},
		{"deletion in a transaction with no space", then(del("edge/many/007", ""))},
		{"lease with no space", &pb.LeaseGrantRequest{ID: 7010, TTL: 60}},
		{"alarms raised", &pb.AlarmRequest{}},
		{"alarms of another kind", &pb.AlarmRequest{Alarm: pb.AlarmType_CORRUPT}},
		{"lower the alarm of another member", &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE, MemberID: 6}},
		{"lower the alarm", &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE, MemberID: 5}},
		{"put with space again", put("edge/a", "space")},

		{"auth status", &pb.AuthStatusRequest{}},
		{"authenticate", &pb.AuthenticateRequest{Name: "root", Password: "secret"}},
	}
}

// send sends any unary request.
func (s *side) send(ctx context.Context, request fmt.Stringer) (message, error) {
	switch r := request.(type) {
	case *pb.PutRequest:
		return s.kv.Put(ctx, r)
	case *pb.RangeRequest:
		return s.kv.Range(ctx, r)
	case *pb.DeleteRangeRequest:
		return s.kv.DeleteRange(ctx, r)
	case *pb.TxnRequest:
		return s.kv.Txn(ctx, r)
	case *pb.CompactionRequest:
		return s.kv.Compact(ctx, r)
	case *pb.LeaseGrantRequest:
		return s.lease.LeaseGrant(ctx, r)
	case *pb.LeaseRevokeRequest:
		return s.lease.LeaseRevoke(ctx, r)
	case *pb.LeaseTimeToLiveRequest:
		return s.lease.LeaseTimeToLive(ctx, r)
	case *pb.HashKVRequest:
		return s.maintenance.HashKV(ctx, r)
	case *pb.AlarmRequest:
		return s.maintenance.Alarm(ctx, r)
	case *pb.AuthStatusRequest:
		return s.auth.AuthStatus(ctx, r)
	case *pb.AuthenticateRequest:
		return s.auth.Authenticate(ctx, r)
	default:
		return nil, fmt.Errorf("a request of type %T", request)
	}
}

// TestEdges sends what no random request hits. Requests share one history, so they are not tests of their own.
func TestEdges(t *testing.T) {
	w := newTwins(t, 1)
	for _, edge := range edges() {
		ours, theirs := w.ours.show(w.ctx, edge.request), w.reference.show(w.ctx, edge.request)
		if ours != theirs {
			t.Errorf("%s\n got: %.600s\nwant: %.600s", edge.name, ours, theirs)
		}
	}
}

func (s *side) show(ctx context.Context, request fmt.Stringer) string {
	answer, err := s.send(ctx, request)
	if err != nil {
		return fmt.Sprintf("%s %q", status.Code(err), status.Convert(err).Message())
	}
	if header := answer.GetHeader(); header != nil {
		header.ClusterId, header.MemberId, header.RaftTerm = 0, 0, 0
	}
	return answer.String()
}

// raw sends bytes that are no message.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)   { return *v.(*[]byte), nil }
func (raw) Unmarshal(_ []byte, _ any) error { return nil }
func (raw) Name() string                    { return "proto" }

// TestMalformed sends the same nonsense to every unary method: the same code, and both live on.
func TestMalformed(t *testing.T) {
	w := newTwins(t, 1)
	methods := []string{
		"KV/Range", "KV/Put", "KV/DeleteRange", "KV/Txn", "KV/Compact", "Lease/LeaseGrant", "Lease/LeaseRevoke", "Lease/LeaseTimeToLive", "Lease/LeaseLeases",
		"Cluster/MemberList", "Maintenance/Alarm", "Maintenance/HashKV", "Maintenance/MoveLeader", "Auth/Authenticate", "KV/NoSuchMethod", "NoSuchService/Put",
	}
	for _, method := range methods {
		for _, bytes := range [][]byte{{0xff}, {0x0a, 0xff}, {0x0a, 0x05, 'a'}, {0x0f, 0x01}, {0x00, 0x00}, []byte(strings.Repeat("\xff", 40))} {
			code := func(s *side) string {
				return status.Code(s.conn.Invoke(w.ctx, "/etcdserverpb."+method, &bytes, &[]byte{}, grpc.ForceCodec(raw{}))).String()
			}
			if ours, theirs := code(w.ours), code(w.reference); ours != theirs {
				t.Errorf("%s with % x: %s, want %s", method, bytes, ours, theirs)
			}
		}
	}
}

// watchScript is a stream's requests; the answers are compared watcher by watcher, since their order among each other is free.
type watchScript struct {
	name     string
	requests []*pb.WatchRequest
}

func create(r *pb.WatchCreateRequest) *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}
}

func cancelWatch(id int64) *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}
}

func watchScripts(first, compacted, current int64) []watchScript {
	on := func(key, end string, start int64) *pb.WatchCreateRequest {
		return &pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(end), StartRevision: start}
	}
	with := func(r *pb.WatchCreateRequest, change func(*pb.WatchCreateRequest)) *pb.WatchRequest {
		change(r)
		return create(r)
	}
	id := func(id int64) func(*pb.WatchCreateRequest) { return func(r *pb.WatchCreateRequest) { r.WatchId = id } }
	return []watchScript{
		{"from a past revision", []*pb.WatchRequest{create(on("watch/", "watch0", first))}},
		{"from the compacted revision on", []*pb.WatchRequest{create(on("watch/", "watch0", compacted))}},
		{"below the compaction", []*pb.WatchRequest{create(on("watch/", "watch0", compacted-1))}},
		{"a negative revision", []*pb.WatchRequest{create(on("watch/", "watch0", -1))}},
		{"from now on", []*pb.WatchRequest{create(on("watch/", "watch0", 0))}},
		{"the current revision", []*pb.WatchRequest{create(on("watch/", "watch0", current))}},
		{"a revision to come", []*pb.WatchRequest{create(on("watch/", "watch0", current+2))}},
		{"one key", []*pb.WatchRequest{create(on("watch/b", "", first))}},
		{"no key", []*pb.WatchRequest{create(on("", "", first))}},
		{"no key to the end", []*pb.WatchRequest{create(on("", "\x00", first))}},
		{"an empty range", []*pb.WatchRequest{create(on("watch/b", "watch/a", first))}},
		{"with previous values", []*pb.WatchRequest{with(on("watch/", "watch0", first), func(r *pb.WatchCreateRequest) { r.PrevKv = true })}},
		{"without puts", []*pb.WatchRequest{with(on("watch/", "watch0", first), func(r *pb.WatchCreateRequest) {
			r.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}
		})}},
		{"without deletions", []*pb.WatchRequest{with(on("watch/", "watch0", first), func(r *pb.WatchCreateRequest) {
			r.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}
		})}},
		{"without anything", []*pb.WatchRequest{with(on("watch/", "watch0", first), func(r *pb.WatchCreateRequest) {
			r.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE, pb.WatchCreateRequest_NOPUT}
		})}},
		{"an unknown filter", []*pb.WatchRequest{with(on("watch/", "watch0", first), func(r *pb.WatchCreateRequest) {
			r.Filters = []pb.WatchCreateRequest_FilterType{9}
		})}},
		{"an id twice", []*pb.WatchRequest{with(on("watch/a", "", 0), id(7)), with(on("watch/b", "", 0), id(7))}},
		{"a negative id", []*pb.WatchRequest{with(on("watch/a", "", 0), id(-4))}},
		{"ids around a given one", []*pb.WatchRequest{with(on("watch/a", "", 0), id(1)), create(on("watch/b", "", 0)), create(on("watch/c", "", 0))}},
		{"an unknown watcher cancelled", []*pb.WatchRequest{create(on("watch/a", "", 0)), cancelWatch(55)}},
		{"a watcher cancelled", []*pb.WatchRequest{create(on("watch/a", "", 0)), cancelWatch(0)}},
		{"a request that is none", []*pb.WatchRequest{{}, create(on("watch/a", "", 0))}},
	}
}

// TestWatchEdges runs each script on a stream of its own, then changes keys, and compares what every watcher was told.
func TestWatchEdges(t *testing.T) {
	w := newTwins(t, 1)
	both := func(request fmt.Stringer) {
		ours, theirs := w.ours.show(w.ctx, request), w.reference.show(w.ctx, request)
		if ours != theirs {
			t.Fatalf("%v\n got: %.600s\nwant: %.600s", request, ours, theirs)
		}
	}
	for _, request := range []fmt.Stringer{
		put("watch/a", "1"), put("watch/b", "1"), put("watch/a", "2"), del("watch/a", ""), put("watch/c", "1"), put("watch/b", "2"),
	} {
		both(request)
	}
	answer, err := w.reference.kv.Range(w.ctx, get("watch/a", ""))
	if err != nil {
		t.Fatal(err)
	}
	current := answer.Header.Revision
	both(&pb.CompactionRequest{Revision: current - 4, Physical: true})
	for i := range watchScripts(0, 0, 0) {
		answer, err := w.reference.kv.Range(w.ctx, get("watch/a", ""))
		if err != nil {
			t.Fatal(err)
		}
		script := watchScripts(current-3, current-4, answer.Header.Revision)[i]
		ours, theirs := w.begin(w.ours, script), w.begin(w.reference, script)
		both(put("watch/b", script.name))
		both(then(put("watch/c", script.name), put("watch/d", script.name)))
		both(del("watch/d", ""))
		both(put("sentinel", script.name))
		got, want := w.told(ours), w.told(theirs)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s\n got: %v\nwant: %v", script.name, got, want)
		}
	}
}

// sentinel is the watcher whose event comes last.
const sentinel = 999

// watching is a stream with the answers that were read before the changes.
type watching struct {
	pb.Watch_WatchClient
	cancel context.CancelFunc
	ahead  []*pb.WatchResponse
}

// begin opens the script's stream and returns once its last watcher, the sentinel, is there.
func (w *twins) begin(s *side, script watchScript) *watching {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
	w.Cleanup(cancel)
	stream, err := s.watch.Watch(ctx)
	if err != nil {
		w.Fatal(err)
	}
	last := create(&pb.WatchCreateRequest{Key: []byte("sentinel"), WatchId: sentinel})
	for _, request := range append(script.requests, last) {
		if err := stream.Send(request); err != nil {
			w.Fatal(err)
		}
	}
	begun := &watching{Watch_WatchClient: stream, cancel: cancel}
	for {
		r, err := stream.Recv()
		if err != nil {
			return begun // told says what it was
		}
		if r.WatchId == sentinel {
			return begun
		}
		begun.ahead = append(begun.ahead, r)
	}
}

// told reads to the sentinel's event, and on until the stream says that all of its watchers have caught up. It gives what each
// watcher was told, message boundaries left out.
func (w *twins) told(s *watching) map[int64][]string {
	w.Helper()
	defer s.cancel()
	told := map[int64][]string{}
	changed, compacted := false, false
	progress := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
	// With a watcher that compaction has cancelled, etcd never says that all have caught up; there is no other one in the script then.
	for !changed || !compacted {
		var r *pb.WatchResponse
		if len(s.ahead) > 0 {
			r, s.ahead = s.ahead[0], s.ahead[1:]
		} else {
			var err error
			if r, err = s.Recv(); err != nil {
				told[sentinel] = []string{err.Error()}
				return told
			}
		}
		switch {
		case r.WatchId == sentinel:
			changed = true
			// A stream with a watcher that lags does not answer, so that it is asked more than once.
			go func() {
				for s.Send(progress) == nil {
					time.Sleep(50 * time.Millisecond)
				}
			}()
		case r.WatchId == -1 && !r.Created && !r.Canceled:
			return told
		case len(r.Events) > 0:
			for _, event := range r.Events {
				told[r.WatchId] = append(told[r.WatchId], event.String())
			}
		default:
			header := int64(0)
			if r.Canceled {
				header = r.Header.Revision
			}
			compacted = compacted || r.CompactRevision > 0
			said := fmt.Sprintf("created %v canceled %v compacted %d at %d %q", r.Created, r.Canceled, r.CompactRevision, header, r.CancelReason)
			told[r.WatchId] = append(told[r.WatchId], said)
		}
	}
	return told
}
