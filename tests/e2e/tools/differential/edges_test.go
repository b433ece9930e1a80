package differential

import (
	"fmt"
	"slices"
	"strings"
	"testing"

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

func with(r *pb.RangeRequest, change func(*pb.RangeRequest)) *pb.RangeRequest { change(r); return r }

func changed(r *pb.PutRequest, change func(*pb.PutRequest)) *pb.PutRequest { change(r); return r }

func leased(key string, lease int64) *pb.PutRequest {
	return changed(put(key, "leased"), func(r *pb.PutRequest) { r.Lease = lease })
}

func putEdges() []edge {
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
		{"the largest message", put("a", strings.Repeat("v", 2<<20-7))},
		{"more than the largest message", put("a", strings.Repeat("v", 2<<20-6))},
		{"a large key", put("edge/"+strings.Repeat("k", 64<<10), "v")},
		{"a key of zeros", put("\x00\x00", "v")},
		{"a key of 0xff", put("\xff\xff", "v")},

		{"delete without a key", del("", "")},
		{"delete nothing", del("edge/none", "")},
		{"delete with the end before the key", del("edge/b", "edge/a")},
	}
}

func rangeEdges() []edge {
	return []edge{
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
		{"sorted by version with a limit", with(get("edge/a", "edge/c"), func(r *pb.RangeRequest) {
			r.SortOrder, r.SortTarget, r.Limit = pb.RangeRequest_DESCEND, pb.RangeRequest_VERSION, 1
		})},
		{"sorted by creation, filtered, with a limit", with(get("edge/", "edge0"), func(r *pb.RangeRequest) {
			r.SortOrder, r.SortTarget, r.Limit, r.MinModRevision, r.KeysOnly = pb.RangeRequest_DESCEND, pb.RangeRequest_CREATE, 2, 3, true
		})},
		{"sorted down with a limit", with(get("edge/a", "edge/c"), func(r *pb.RangeRequest) { r.SortOrder, r.Limit = pb.RangeRequest_DESCEND, 1 })},
		{"count and keys only", with(get("edge/a", "edge/c"), func(r *pb.RangeRequest) { r.CountOnly, r.KeysOnly = true, true })},
		{"count with a limit", with(get("edge/a", "edge/c"), func(r *pb.RangeRequest) { r.CountOnly, r.Limit = true, 1 })},
		{"mod filter", with(get("edge/a", "edge/c"), func(r *pb.RangeRequest) { r.MinModRevision = 1 << 40 })},
		{"filters that exclude each other", with(get("edge/a", "edge/c"), func(r *pb.RangeRequest) { r.MinCreateRevision, r.MaxCreateRevision = 9, 3 })},
		{"filter with a limit", with(get("edge/a", "edge/c"), func(r *pb.RangeRequest) { r.MinModRevision, r.Limit = 2, 1 })},
		{"negative filter", with(get("edge/a", "edge/c"), func(r *pb.RangeRequest) { r.MaxModRevision = -1 })},
	}
}

func txnEdges() []edge {
	key := []byte("edge/a")
	manyCompares := &pb.TxnRequest{}
	for i := 0; i < 129; i++ {
		manyCompares.Compare = append(manyCompares.Compare, &pb.Compare{Key: key})
	}
	return []edge{
		{"empty transaction", &pb.TxnRequest{}},
		{"128 operations", many(128)},
		{"129 operations", many(129)},
		{"129 compares", manyCompares},
		{"127 operations, nested", then(many(127))},
		{"128 operations, nested", then(many(128))},
		{"126 operations, nested twice", then(then(many(126)))},
		{"127 operations, nested twice", then(then(many(127)))},
		{"64 operations and 64 nested", &pb.TxnRequest{Success: append(then(many(64)).Success, many(128).Success[64:127]...)}},
		{"64 operations and 65 nested", &pb.TxnRequest{Success: append(then(many(65)).Success, many(128).Success[65:]...)}},
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
		{"a read ahead, nested", then(put("edge/t", "1"), then(&pb.RangeRequest{Key: key, Revision: 1 << 40}))},
		{"a read of old in a branch taken", then(put("edge/t", "1"), &pb.RangeRequest{Key: key, Revision: 2})},
		{"a read of the future that the transaction makes", then(put("edge/t", "1"), &pb.RangeRequest{Key: key, Revision: 1 << 20})},
		{"what the failed ones have left", get("edge/t", "")},
		{"a read ahead in a branch not taken", &pb.TxnRequest{Failure: then(&pb.RangeRequest{Key: key, Revision: 1 << 40}).Success}},
		{"an unknown lease inside", then(put("edge/u", "1"), changed(put("edge/t", "1"), func(r *pb.PutRequest) { r.Lease = 424242 }))},
		{"ignore_value of a missing key inside", then(put("edge/u", "1"), changed(put("edge/none", ""), func(r *pb.PutRequest) { r.IgnoreValue = true }))},
		{"an empty key inside", then(put("", "1"))},
		{"an empty key deleted inside", then(del("", ""))},
		{"an empty key read inside", then(get("", ""))},
	}
}

func compareEdges() []edge {
	key, none := []byte("edge/a"), []byte("edge/none")
	value := func(s string) *pb.Compare_Value { return &pb.Compare_Value{Value: []byte(s)} }
	return []edge{
		{"an empty key compared", when(&pb.Compare{}, put("edge/t", "1"))},
		{"unknown compare result", when(&pb.Compare{Key: key, Result: 9}, put("edge/t", "1"))},
		{"unknown compare target", when(&pb.Compare{Key: key, Target: 9}, put("edge/t", "1"))},
		{"compare target without its value", when(&pb.Compare{Key: key, Target: pb.Compare_MOD}, put("edge/t", "1"))},
		{"compare target with another's value", when(&pb.Compare{Key: key, Target: pb.Compare_MOD, TargetUnion: value("1")}, put("edge/t", "1"))},
		{"value of a missing key equal", when(&pb.Compare{Key: none, Target: pb.Compare_VALUE, TargetUnion: value("")}, put("edge/t", "1"))},
		{"value of a missing key less", when(&pb.Compare{Key: none, Target: pb.Compare_VALUE, Result: pb.Compare_LESS, TargetUnion: value("x")}, put("edge/t", "1"))},
		{"value of an empty range", when(&pb.Compare{Key: none, RangeEnd: []byte("edge/none0"), Target: pb.Compare_VALUE, Result: pb.Compare_NOT_EQUAL, TargetUnion: value("x")}, put("edge/t", "1"))},
		{"create and mod of a missing key", when(&pb.Compare{Key: none, Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: 0}}, put("edge/t", "1"))},
		{"value of a missing key not equal", when(&pb.Compare{Key: none, Target: pb.Compare_VALUE, Result: pb.Compare_NOT_EQUAL, TargetUnion: value("x")}, put("edge/t", "1"))},
		{"version of a missing key", when(&pb.Compare{Key: none, Target: pb.Compare_VERSION, TargetUnion: &pb.Compare_Version{Version: 0}}, put("edge/t", "1"))},
		{"lease of a key without one", when(&pb.Compare{Key: key, Target: pb.Compare_LEASE, TargetUnion: &pb.Compare_Lease{Lease: 0}}, put("edge/t", "1"))},
		{"compare over a range", when(&pb.Compare{Key: key, RangeEnd: []byte("edge/c"), Target: pb.Compare_CREATE, Result: pb.Compare_GREATER, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: 0}}, put("edge/t", "1"))},
		{"compare over an empty range", when(&pb.Compare{Key: none, RangeEnd: []byte("edge/none0"), Target: pb.Compare_CREATE, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: 0}}, put("edge/t", "1"))},
		{"compare over an empty range with more", when(&pb.Compare{Key: none, RangeEnd: []byte("edge/none0"), Target: pb.Compare_CREATE, Result: pb.Compare_GREATER, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: 0}}, put("edge/t", "1"))},
		{"nested, three deep", nested(3, then(put("edge/deep", "1"), get("edge/deep", "")))},
		{"nested, with a failing compare", then(when(&pb.Compare{Key: key, Target: pb.Compare_VERSION, TargetUnion: &pb.Compare_Version{Version: 99}}, put("edge/deep", "2")))},
	}
}

// TestKVEdges sends what no random request hits. Requests share one history, so they are not tests of their own.
func TestKVEdges(t *testing.T) {
	same(t, fast, slices.Concat(putEdges(), rangeEdges(), txnEdges(), compareEdges()))
}

// same sends the requests to a fresh pair.
func same(t *testing.T, flags []string, edges []edge) {
	t.Helper()
	p := startPair(t, flags)
	defer p.stop()
	for _, edge := range edges {
		ours, reference := both(p, func(s *side) reply { return s.ask(t.Context(), edge.request) })
		if ours.text != reference.text {
			t.Errorf("%s\n got: %.600s\nwant: %.600s", edge.name, ours.text, reference.text)
		}
	}
}
