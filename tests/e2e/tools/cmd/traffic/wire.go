package main

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// What is recorded as a request is what is sent, but for the padding of large values.

func (r *rangeRequest) wire() *pb.RangeRequest {
	return &pb.RangeRequest{
		Key: []byte(r.Key), RangeEnd: []byte(r.End), Revision: r.Revision, Limit: r.Limit,
		Serializable: r.Serializable, CountOnly: r.CountOnly, KeysOnly: r.KeysOnly,
	}
}

func (r *putRequest) wire() *pb.PutRequest {
	return &pb.PutRequest{Key: []byte(r.Key), Value: unrecorded(r.Value), Lease: r.Lease, PrevKv: r.PrevKv}
}

func (r *deleteRequest) wire() *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: []byte(r.Key), RangeEnd: []byte(r.End), PrevKv: r.PrevKv}
}

func (r *txnRequest) wire() *pb.TxnRequest {
	out := &pb.TxnRequest{Success: wireOps(r.Then), Failure: wireOps(r.Else)}
	for _, c := range r.Compares {
		out.Compare = append(out.Compare, c.wire())
	}
	return out
}

func wireOps(ops []request) []*pb.RequestOp {
	out := make([]*pb.RequestOp, len(ops))
	for i, op := range ops {
		switch {
		case op.Range != nil:
			out[i] = &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: op.Range.wire()}}
		case op.Put != nil:
			out[i] = &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: op.Put.wire()}}
		case op.Delete != nil:
			out[i] = &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: op.Delete.wire()}}
		case op.Txn != nil:
			out[i] = &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: op.Txn.wire()}}
		}
	}
	return out
}

var results = map[string]pb.Compare_CompareResult{
	"=": pb.Compare_EQUAL, "!=": pb.Compare_NOT_EQUAL, ">": pb.Compare_GREATER, "<": pb.Compare_LESS,
}

func (c *compare) wire() *pb.Compare {
	out := &pb.Compare{Key: []byte(c.Key), RangeEnd: []byte(c.End), Result: results[c.Result]}
	switch c.Target {
	case "value":
		out.Target, out.TargetUnion = pb.Compare_VALUE, &pb.Compare_Value{Value: unrecorded(c.Value)}
	case "version":
		out.Target, out.TargetUnion = pb.Compare_VERSION, &pb.Compare_Version{Version: c.Number}
	case "create":
		out.Target, out.TargetUnion = pb.Compare_CREATE, &pb.Compare_CreateRevision{CreateRevision: c.Number}
	case "mod":
		out.Target, out.TargetUnion = pb.Compare_MOD, &pb.Compare_ModRevision{ModRevision: c.Number}
	case "lease":
		out.Target, out.TargetUnion = pb.Compare_LEASE, &pb.Compare_Lease{Lease: c.Number}
	}
	return out
}

func (o *watchOpen) wire(id int64) *pb.WatchRequest {
	create := &pb.WatchCreateRequest{
		Key: []byte(o.Key), RangeEnd: []byte(o.End), StartRevision: o.Start, PrevKv: o.PrevKv,
		ProgressNotify: o.Progress, Fragment: o.Fragment, WatchId: id,
	}
	if o.NoPut {
		create.Filters = append(create.Filters, pb.WatchCreateRequest_NOPUT)
	}
	if o.NoDelete {
		create.Filters = append(create.Filters, pb.WatchCreateRequest_NODELETE)
	}
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}
}
