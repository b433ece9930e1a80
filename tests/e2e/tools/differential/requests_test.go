package differential

import (
	"fmt"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// A small key space, so that requests meet.
func (w *twins) key() []byte {
	return []byte(fmt.Sprintf("%c%s", 'a'+rune(w.random.Intn(4)), strings.Repeat("x", w.random.Intn(6))))
}

func (w *twins) value() []byte {
	return []byte(strings.Repeat(fmt.Sprint(w.random.Intn(10)), w.random.Intn(60)))
}

func (w *twins) bounds() (key, end []byte) {
	switch w.random.Intn(10) {
	case 0:
		return []byte{0}, []byte{0}
	case 1:
		return w.key(), []byte{0}
	case 2, 3, 4:
		return w.key(), w.key()
	default:
		return w.key(), nil
	}
}

func (w *twins) oneIn(n int) bool { return w.random.Intn(n) == 0 }

func (w *twins) someRevision() int64 {
	return w.compacted + w.random.Int63n(w.revision-w.compacted+4) - 1
}

func (w *twins) someLease() int64 {
	if len(w.leases) == 0 || w.oneIn(8) {
		return 999
	}
	return w.leases[w.random.Intn(len(w.leases))]
}

func (w *twins) putRequest() *pb.PutRequest {
	r := &pb.PutRequest{Key: w.key(), Value: w.value(), PrevKv: w.oneIn(3)}
	if w.oneIn(4) {
		r.Lease = w.someLease()
	}
	if w.oneIn(10) {
		r.IgnoreValue = true
		if !w.oneIn(8) {
			r.Value = nil
		}
	}
	if w.oneIn(10) {
		r.IgnoreLease = true
		if !w.oneIn(8) {
			r.Lease = 0
		}
	}
	return r
}

func (w *twins) rangeRequest() *pb.RangeRequest {
	r := &pb.RangeRequest{KeysOnly: w.oneIn(6), CountOnly: w.oneIn(8), Serializable: w.oneIn(4)}
	r.Key, r.RangeEnd = w.bounds()
	if w.oneIn(3) {
		r.Limit = w.random.Int63n(6)
	}
	if w.oneIn(3) {
		r.Revision = w.someRevision()
	}
	if w.oneIn(4) {
		r.SortOrder = pb.RangeRequest_SortOrder(w.random.Intn(4))
		r.SortTarget = pb.RangeRequest_SortTarget(w.random.Intn(5))
		if r.SortTarget != pb.RangeRequest_KEY {
			r.Limit = 0
		}
	}
	if w.oneIn(6) {
		r.MinModRevision = w.random.Int63n(w.revision + 1)
	}
	if w.oneIn(6) {
		r.MaxModRevision = w.random.Int63n(w.revision + 1)
	}
	if w.oneIn(6) {
		r.MinCreateRevision = w.random.Int63n(w.revision + 1)
	}
	if w.oneIn(6) {
		r.MaxCreateRevision = w.random.Int63n(w.revision + 1)
	}
	return r
}

func (w *twins) deleteRequest() *pb.DeleteRangeRequest {
	r := &pb.DeleteRangeRequest{PrevKv: w.oneIn(2)}
	r.Key, r.RangeEnd = w.bounds()
	if len(r.RangeEnd) == 1 && r.RangeEnd[0] == 0 && !w.oneIn(6) {
		r.RangeEnd = nil
	}
	return r
}

func (w *twins) compareRequest() *pb.Compare {
	c := &pb.Compare{Result: pb.Compare_CompareResult(w.random.Intn(4))}
	c.Key, c.RangeEnd = w.bounds()
	switch w.random.Intn(5) {
	case 0:
		c.Target, c.TargetUnion = pb.Compare_VERSION, &pb.Compare_Version{Version: w.random.Int63n(4)}
	case 1:
		c.Target, c.TargetUnion = pb.Compare_CREATE, &pb.Compare_CreateRevision{CreateRevision: w.random.Int63n(w.revision + 1)}
	case 2:
		c.Target, c.TargetUnion = pb.Compare_MOD, &pb.Compare_ModRevision{ModRevision: w.random.Int63n(w.revision + 1)}
	case 3:
		c.Target, c.TargetUnion = pb.Compare_VALUE, &pb.Compare_Value{Value: w.value()}
	default:
		c.Target, c.TargetUnion = pb.Compare_LEASE, &pb.Compare_Lease{Lease: w.random.Int63n(3)}
	}
	return c
}

func (w *twins) txnRequest(depth int) *pb.TxnRequest {
	if depth == 0 {
		w.keepsKeys = w.oneIn(3)
	}
	r := &pb.TxnRequest{}
	for i := w.random.Intn(3); i > 0; i-- {
		r.Compare = append(r.Compare, w.compareRequest())
	}
	ops := func() (out []*pb.RequestOp) {
		for i := w.random.Intn(4); i > 0; i-- {
			out = append(out, w.op(depth))
		}
		return out
	}
	r.Success, r.Failure = ops(), ops()
	return r
}

func (w *twins) op(depth int) *pb.RequestOp {
	switch n := w.random.Intn(10); {
	case n < 4:
		r := w.putRequest()
		if !w.keepsKeys { // etcd 3.6 checks ignore_* on the state before the transaction, and panics when a delete in it took the key
			r.IgnoreValue, r.IgnoreLease = false, false
		}
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
	case n < 6:
		r := w.rangeRequest()
		r.SortTarget = pb.RangeRequest_KEY // ties of other targets have no order
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
	case !w.keepsKeys && (n < 8 || depth == 2):
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: w.deleteRequest()}}
	case depth == 2:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: w.key()}}}
	default:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: w.txnRequest(depth + 1)}}
	}
}
