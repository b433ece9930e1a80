package clientv3

import (
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"garboard.dev/tests/e2e/tools/target"
)

const (
	equal    = pb.Compare_EQUAL
	greater  = pb.Compare_GREATER
	less     = pb.Compare_LESS
	notEqual = pb.Compare_NOT_EQUAL
)

func cmpVersion(key []byte, result pb.Compare_CompareResult, v int64) *pb.Compare {
	return &pb.Compare{Key: key, Target: pb.Compare_VERSION, Result: result, TargetUnion: &pb.Compare_Version{Version: v}}
}

func cmpCreate(key []byte, result pb.Compare_CompareResult, v int64) *pb.Compare {
	return &pb.Compare{Key: key, Target: pb.Compare_CREATE, Result: result, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: v}}
}

func cmpMod(key []byte, result pb.Compare_CompareResult, v int64) *pb.Compare {
	return &pb.Compare{Key: key, Target: pb.Compare_MOD, Result: result, TargetUnion: &pb.Compare_ModRevision{ModRevision: v}}
}

func cmpLease(key []byte, result pb.Compare_CompareResult, v int64) *pb.Compare {
	return &pb.Compare{Key: key, Target: pb.Compare_LEASE, Result: result, TargetUnion: &pb.Compare_Lease{Lease: v}}
}

func cmpValue(key []byte, result pb.Compare_CompareResult, v string) *pb.Compare {
	return &pb.Compare{Key: key, Target: pb.Compare_VALUE, Result: result, TargetUnion: &pb.Compare_Value{Value: []byte(v)}}
}

func over(c *pb.Compare, end []byte) *pb.Compare { c.RangeEnd = end; return c }

func (e *env) txn(request *pb.TxnRequest) *pb.TxnResponse {
	e.Helper()
	r, err := e.kv.Txn(e.ctx, request)
	e.ok(err)
	return r
}

func (e *env) holds(what string, want bool, compare ...*pb.Compare) {
	e.Helper()
	e.check(what, e.txn(&pb.TxnRequest{Compare: compare}).Succeeded, want)
}

func TestTxnCompares(t *testing.T) {
	e := setup(t)
	lease := e.grant(100, 0)
	create := e.put("k", "a")
	mod := e.putLease("k", "m", lease.ID)
	k, id := e.key("k"), lease.ID

	type target struct {
		name  string
		value int64
		cmp   func([]byte, pb.Compare_CompareResult, int64) *pb.Compare
	}
	for _, x := range []target{{"version", 2, cmpVersion}, {"create", create, cmpCreate}, {"mod", mod, cmpMod}, {"lease", id, cmpLease}} {
		for _, c := range []struct {
			result     pb.Compare_CompareResult
			lo, at, hi bool // against value-1, value, value+1
		}{{equal, false, true, false}, {notEqual, true, false, true}, {greater, true, false, false}, {less, false, false, true}} {
			name := fmt.Sprintf("%s %s", x.name, c.result)
			e.holds(name+" below", c.lo, x.cmp(k, c.result, x.value-1))
			e.holds(name+" same", c.at, x.cmp(k, c.result, x.value))
			e.holds(name+" above", c.hi, x.cmp(k, c.result, x.value+1))
		}
	}
	e.holds("value equal", true, cmpValue(k, equal, "m"))
	e.holds("value not equal", true, cmpValue(k, notEqual, "a"))
	e.holds("value greater", true, cmpValue(k, greater, "a"))
	e.holds("value greater is strict", false, cmpValue(k, greater, "m"))
	e.holds("value less", true, cmpValue(k, less, "z"))
	e.holds("value less is bytewise", false, cmpValue(k, less, "Z"))
	e.holds("all must hold", false, cmpValue(k, equal, "m"), cmpVersion(k, equal, 9))
	e.holds("no compare holds", true)
}

func TestTxnCompareMissingKey(t *testing.T) {
	e := setup(t)
	k := e.key("missing")
	e.holds("version 0", true, cmpVersion(k, equal, 0))
	e.holds("create 0", true, cmpCreate(k, equal, 0))
	e.holds("mod 0", true, cmpMod(k, equal, 0))
	e.holds("lease 0", true, cmpLease(k, equal, 0))
	e.holds("mod > 0", false, cmpMod(k, greater, 0))
	e.holds("mod < 1", true, cmpMod(k, less, 1))
	for _, result := range []pb.Compare_CompareResult{equal, notEqual, less, greater} {
		e.holds("a value compare never holds", false, cmpValue(k, result, ""))
	}
	end := e.key("missinh")
	e.holds("empty range, create 0", true, over(cmpCreate(k, equal, 0), end))
	e.holds("empty range, create > 0", false, over(cmpCreate(k, greater, 0), end))
	e.holds("empty range, value", false, over(cmpValue(k, equal, ""), end))
}

func TestTxnCompareRange(t *testing.T) {
	e := setup(t)
	e.put("a", "x")
	e.put("b", "x")
	last := e.put("c", "y")
	e.holds("all but one", false, over(cmpValue(e.key(""), equal, "x"), e.end()))
	e.holds("half-open", true, over(cmpValue(e.key(""), equal, "x"), e.key("c")))
	e.holds("all older", true, over(cmpMod(e.key(""), less, last+1), e.end()))
	e.holds("not all older", false, over(cmpMod(e.key(""), less, last), e.end()))
	e.holds("from key", true, over(cmpVersion(e.key("zzz"), equal, 0), e.key("zzzz")))
}

func TestTxnBranchesAndHeaders(t *testing.T) {
	e := setup(t)
	e.put("old", "")
	before := e.revision()
	r := e.txn(&pb.TxnRequest{
		Compare: []*pb.Compare{cmpMod(e.key("a"), equal, 0)},
		Success: []*pb.RequestOp{opPut(e.key("a"), "1"), opPut(e.key("b"), "1"), opGet(e.key("a")), opDelete(e.key("old"), nil), opGet(e.key("old"))},
		Failure: []*pb.RequestOp{opGet(e.key("a"))},
	})
	e.check("then", []any{r.Succeeded, len(r.Responses), r.Header.Revision}, []any{true, 5, before + 1})
	if r.Header.ClusterId == 0 || r.Header.MemberId == 0 || r.Header.RaftTerm == 0 {
		t.Fatalf("outer header %v", r.Header)
	}
	inner := r.Responses[0].GetResponsePut().Header
	e.check("inner header", []uint64{inner.ClusterId, inner.MemberId, inner.RaftTerm, uint64(inner.Revision)}, []uint64{0, 0, 0, uint64(before + 1)})
	got := r.Responses[2].GetResponseRange()
	e.check("a read sees earlier writes", []any{string(got.Kvs[0].Value), got.Kvs[0].ModRevision}, []any{"1", before + 1})
	e.check("deleted", r.Responses[3].GetResponseDeleteRange().Deleted, 1)
	e.check("and gone for a later read", r.Responses[4].GetResponseRange().Count, 0)

	r = e.txn(&pb.TxnRequest{
		Compare: []*pb.Compare{cmpMod(e.key("a"), equal, 0)},
		Success: []*pb.RequestOp{opPut(e.key("a"), "2")},
		Failure: []*pb.RequestOp{opGet(e.key("a"))},
	})
	e.check("else, no revision", []any{r.Succeeded, r.Header.Revision}, []any{false, before + 1})
	e.check("else reads", string(r.Responses[0].GetResponseRange().Kvs[0].Value), "1")
	r = e.txn(&pb.TxnRequest{Success: []*pb.RequestOp{opDelete(e.key("nothing"), nil)}})
	e.check("a txn that changes nothing is no revision", r.Header.Revision, before+1)
	r = e.txn(&pb.TxnRequest{})
	e.check("empty", []any{r.Succeeded, len(r.Responses), r.Header.Revision}, []any{true, 0, before + 1})
}

func TestTxnOptimisticLoop(t *testing.T) {
	e := setup(t)
	rev := e.put("k", "0")
	for i := 1; i <= 50; i++ {
		r := e.txn(&pb.TxnRequest{
			Compare: []*pb.Compare{cmpMod(e.key("k"), equal, rev)},
			Success: []*pb.RequestOp{opPut(e.key("k"), fmt.Sprint(i))},
			Failure: []*pb.RequestOp{opGet(e.key("k"))},
		})
		e.check("succeeded", r.Succeeded, true)
		rev = r.Header.Revision
	}
	r := e.txn(&pb.TxnRequest{
		Compare: []*pb.Compare{cmpMod(e.key("k"), equal, rev-1)},
		Success: []*pb.RequestOp{opDelete(e.key("k"), nil)},
		Failure: []*pb.RequestOp{opGet(e.key("k"))},
	})
	e.check("conflict shows the newest", []any{r.Succeeded, r.Responses[0].GetResponseRange().Kvs[0].ModRevision}, []any{false, rev})
}

func TestTxnNested(t *testing.T) {
	e := setup(t)
	before := e.revision()
	r := e.txn(&pb.TxnRequest{Success: []*pb.RequestOp{
		opPut(e.key("a"), "1"),
		opTxn(&pb.TxnRequest{
			Compare: []*pb.Compare{cmpMod(e.key("a"), equal, 0)}, // decided on the state before the transaction
			Success: []*pb.RequestOp{opPut(e.key("b"), "then"), opGet(e.key("a"))},
			Failure: []*pb.RequestOp{opPut(e.key("b"), "else")},
		}),
		opGet(e.key("b")),
	}})
	nested := r.Responses[1].GetResponseTxn()
	e.check("nested", []any{nested.Succeeded, len(nested.Responses)}, []any{true, 2})
	e.check("order", string(r.Responses[2].GetResponseRange().Kvs[0].Value), "then")
	e.check("one revision", []int64{r.Header.Revision, e.get("a").ModRevision, e.get("b").ModRevision}, []int64{before + 1, before + 1, before + 1})

	r = e.txn(&pb.TxnRequest{Success: []*pb.RequestOp{opTxn(&pb.TxnRequest{
		Compare: []*pb.Compare{cmpValue(e.key("a"), equal, "no")},
		Failure: []*pb.RequestOp{opTxn(&pb.TxnRequest{Success: []*pb.RequestOp{opPut(e.key("c"), "deep")}})},
	})}})
	e.check("deep", []any{r.Responses[0].GetResponseTxn().Succeeded, string(e.get("c").Value)}, []any{false, "deep"})
}

func TestTxnPutOptions(t *testing.T) {
	e := setup(t)
	e.put("k", "1")
	r := e.txn(&pb.TxnRequest{Success: []*pb.RequestOp{
		{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: e.key("k"), Value: []byte("2"), PrevKv: true}}},
		{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: e.key("j"), PrevKv: true}}},
	}})
	e.check("prev_kv", string(r.Responses[0].GetResponsePut().PrevKv.Value), "1")

	before := e.revision()
	_, err := e.kv.Txn(e.ctx, &pb.TxnRequest{Success: []*pb.RequestOp{
		opPut(e.key("other"), "x"),
		{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: e.key("missing"), IgnoreValue: true}}},
	}})
	target.WantStatus(t, err, codes.InvalidArgument, "etcdserver: key not found")
	_, err = e.kv.Txn(e.ctx, &pb.TxnRequest{Success: []*pb.RequestOp{
		opPut(e.key("other"), "x"),
		{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: e.key("missing"), Lease: 123454321}}},
	}})
	target.WantStatus(t, err, codes.NotFound, "etcdserver: requested lease not found")
	e.check("nothing applied", []any{e.revision(), e.get("other") == nil}, []any{before, true})
}

func TestTxnDuplicateKeys(t *testing.T) {
	e := setup(t)
	k, end := e.key("k"), e.key("l")
	const text = "etcdserver: duplicate key given in txn request"
	refused := map[string][]*pb.RequestOp{
		"put twice":                     {opPut(k, "1"), opPut(k, "2")},
		"put then delete":               {opPut(k, "1"), opDelete(k, nil)},
		"delete then put":               {opDelete(k, nil), opPut(k, "1")},
		"delete of a range around put":  {opDelete(e.key("a"), e.key("z")), opPut(k, "1")},
		"nested put twice":              {opPut(k, "1"), opTxn(&pb.TxnRequest{Success: []*pb.RequestOp{opPut(k, "2")}})},
		"nested delete over put":        {opPut(k, "1"), opTxn(&pb.TxnRequest{Failure: []*pb.RequestOp{opDelete(k, end)}})},
		"two nested with the same key":  {opTxn(&pb.TxnRequest{Success: []*pb.RequestOp{opPut(k, "2")}}), opTxn(&pb.TxnRequest{Success: []*pb.RequestOp{opPut(k, "2")}})},
		"nested put under outer delete": {opDelete(k, nil), opTxn(&pb.TxnRequest{Success: []*pb.RequestOp{opPut(k, "2")}})},
	}
	for name, ops := range refused {
		t.Run(name, func(t *testing.T) {
			_, err := e.kv.Txn(e.ctx, &pb.TxnRequest{Success: ops})
			target.WantStatus(t, err, codes.InvalidArgument, text)
		})
	}
	legal := map[string]*pb.TxnRequest{
		"then and else are separate":        {Success: []*pb.RequestOp{opPut(k, "1")}, Failure: []*pb.RequestOp{opPut(k, "2")}},
		"two deletes of one key":            {Success: []*pb.RequestOp{opDelete(k, nil), opDelete(k, nil)}},
		"overlapping deletes":               {Success: []*pb.RequestOp{opDelete(k, end), opDelete(e.key("a"), e.key("z"))}},
		"put beside the end of a range":     {Success: []*pb.RequestOp{opDelete(k, end), opPut(end, "1")}},
		"nested then and else are separate": {Success: []*pb.RequestOp{opTxn(&pb.TxnRequest{Success: []*pb.RequestOp{opPut(k, "1")}, Failure: []*pb.RequestOp{opPut(k, "2")}})}},
		"read and put":                      {Success: []*pb.RequestOp{opGet(k), opPut(k, "1"), opGet(k)}},
	}
	for name, request := range legal {
		t.Run(name, func(t *testing.T) {
			if _, err := e.kv.Txn(e.ctx, request); err != nil {
				t.Fatal(err)
			}
		})
	}
	e.put("k", "1")
	r := e.txn(&pb.TxnRequest{Success: []*pb.RequestOp{opDelete(k, nil), opDelete(k, nil)}})
	e.check("second delete finds nothing", []int64{r.Responses[0].GetResponseDeleteRange().Deleted, r.Responses[1].GetResponseDeleteRange().Deleted}, []int64{1, 0})
}

func TestTxnReadAtRevision(t *testing.T) {
	e := setup(t)
	r1 := e.put("k", "1")
	e.put("k", "2")
	r := e.txn(&pb.TxnRequest{Success: []*pb.RequestOp{opGetAt(e.key("k"), r1), opGet(e.key("k"))}})
	e.check("past and present", []string{string(r.Responses[0].GetResponseRange().Kvs[0].Value), string(r.Responses[1].GetResponseRange().Kvs[0].Value)}, []string{"1", "2"})

	before := e.revision()
	_, err := e.kv.Txn(e.ctx, &pb.TxnRequest{Success: []*pb.RequestOp{opPut(e.key("w"), "x"), opGetAt(e.key("k"), before+1000)}})
	target.WantStatus(t, err, codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision")
	e.check("fails before any write", []any{e.revision(), e.get("w") == nil}, []any{before, true})
	_, err = e.kv.Txn(e.ctx, &pb.TxnRequest{Success: []*pb.RequestOp{opTxn(&pb.TxnRequest{Success: []*pb.RequestOp{opPut(e.key("w"), "x"), opGetAt(e.key("k"), before+1000)}})}})
	target.WantStatus(t, err, codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision")
	e.compact(before)
	_, err = e.kv.Txn(e.ctx, &pb.TxnRequest{Success: []*pb.RequestOp{opPut(e.key("w"), "x"), opGetAt(e.key("k"), r1)}})
	target.WantStatus(t, err, codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted")
	r = e.txn(&pb.TxnRequest{
		Compare: []*pb.Compare{cmpVersion(e.key("k"), equal, 99)},
		Success: []*pb.RequestOp{opGetAt(e.key("k"), r1)},
		Failure: []*pb.RequestOp{opGet(e.key("k"))},
	})
	e.check("only the branch taken is checked", r.Succeeded, false)
}

func TestTxnSerializableReads(t *testing.T) {
	e := setup(t)
	e.put("k", "1")
	r := e.txn(&pb.TxnRequest{
		Compare: []*pb.Compare{cmpVersion(e.key("k"), greater, 0)},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: e.key("k"), Serializable: true}}}},
	})
	e.check("read", string(r.Responses[0].GetResponseRange().Kvs[0].Value), "1")
}

func TestTxnErrors(t *testing.T) {
	e := setup(t)
	k := e.key("k")
	many := func(n int) []*pb.RequestOp {
		ops := make([]*pb.RequestOp, n)
		for i := range ops {
			ops[i] = opPut(e.key(fmt.Sprint("n", i)), "")
		}
		return ops
	}
	manyCompares := make([]*pb.Compare, 129)
	for i := range manyCompares {
		manyCompares[i] = cmpVersion(k, equal, 0)
	}
	const tooMany = "etcdserver: too many operations in txn request"
	cases := []struct {
		name    string
		request *pb.TxnRequest
		text    string
	}{
		{"129 puts", &pb.TxnRequest{Success: many(129)}, tooMany},
		{"129 in else", &pb.TxnRequest{Failure: many(129)}, tooMany},
		{"129 compares", &pb.TxnRequest{Compare: manyCompares}, tooMany},
		{"nested gets what is left", &pb.TxnRequest{Success: append(many(100), opTxn(&pb.TxnRequest{Success: []*pb.RequestOp{
			opGet(k), opGet(k), opGet(k), opGet(k), opGet(k), opGet(k), opGet(k), opGet(k), opGet(k), opGet(k),
			opGet(k), opGet(k), opGet(k), opGet(k), opGet(k), opGet(k), opGet(k), opGet(k), opGet(k), opGet(k),
			opGet(k), opGet(k), opGet(k), opGet(k), opGet(k), opGet(k), opGet(k), opGet(k)}}))}, tooMany},
		{"compare without key", &pb.TxnRequest{Compare: []*pb.Compare{cmpVersion(nil, equal, 0)}}, "etcdserver: key is not provided"},
		{"put without key", &pb.TxnRequest{Success: []*pb.RequestOp{opPut(nil, "")}}, "etcdserver: key is not provided"},
		{"get without key", &pb.TxnRequest{Failure: []*pb.RequestOp{opGet(nil)}}, "etcdserver: key is not provided"},
		{"delete without key", &pb.TxnRequest{Success: []*pb.RequestOp{opDelete(nil, nil)}}, "etcdserver: key is not provided"},
		{"nested without key", &pb.TxnRequest{Success: []*pb.RequestOp{opTxn(&pb.TxnRequest{Failure: []*pb.RequestOp{opPut(nil, "")}})}}, "etcdserver: key is not provided"},
		{"op without request", &pb.TxnRequest{Success: []*pb.RequestOp{{}}}, "etcdserver: key not found"},
		{"value and ignore_value", &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: k, Value: []byte("v"), IgnoreValue: true}}}}}, "etcdserver: value is provided"},
		{"sort option", &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: k, SortOrder: 5}}}}}, "etcdserver: invalid sort option"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := e.kv.Txn(e.ctx, c.request)
			target.WantStatus(t, err, codes.InvalidArgument, c.text)
		})
	}
	e.check("128 are fine", len(e.txn(&pb.TxnRequest{Success: many(128)}).Responses), 128)
}
