// Package clientv3 drives the API with etcd's own Go client and states what clients rely on.
// Each test holds for real etcd 3.6, which is the control.
package clientv3

import (
	"context"
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"garboard.dev/tests/e2e/tools/target"
)

// env is what nearly each test needs.
type env struct {
	testing.TB
	ctx    context.Context
	client *clientv3.Client
	kv     pb.KVClient
	prefix string
}

func setup(t *testing.T) *env {
	t.Helper()
	client := target.Client(t)
	return &env{TB: t, ctx: target.Context(t), client: client, kv: pb.NewKVClient(client.ActiveConnection()), prefix: target.Prefix(t)}
}

func (e *env) key(name string) []byte { return []byte(e.prefix + name) }

// end is the end of the test's own part of the key space.
func (e *env) end() []byte { return []byte(clientv3.GetPrefixRangeEnd(e.prefix)) }

func (e *env) put(name, value string) int64 {
	e.Helper()
	return e.putLease(name, value, 0)
}

func (e *env) putLease(name, value string, lease int64) int64 {
	e.Helper()
	r, err := e.kv.Put(e.ctx, &pb.PutRequest{Key: e.key(name), Value: []byte(value), Lease: lease})
	e.ok(err)
	return r.Header.Revision
}

func (e *env) delete(name string) int64 {
	e.Helper()
	r, err := e.kv.DeleteRange(e.ctx, &pb.DeleteRangeRequest{Key: e.key(name)})
	e.ok(err)
	return r.Header.Revision
}

func (e *env) get(name string) *mvccpb.KeyValue {
	e.Helper()
	r, err := e.kv.Range(e.ctx, &pb.RangeRequest{Key: e.key(name)})
	e.ok(err)
	if len(r.Kvs) == 0 {
		return nil
	}
	return r.Kvs[0]
}

// list is a Range over the whole part of the test.
func (e *env) list(change func(*pb.RangeRequest)) *pb.RangeResponse {
	e.Helper()
	request := &pb.RangeRequest{Key: e.key(""), RangeEnd: e.end()}
	if change != nil {
		change(request)
	}
	r, err := e.kv.Range(e.ctx, request)
	e.ok(err)
	return r
}

func (e *env) revision() int64 {
	e.Helper()
	r, err := e.kv.Range(e.ctx, &pb.RangeRequest{Key: []byte("any"), CountOnly: true})
	e.ok(err)
	return r.Header.Revision
}

func (e *env) compact(revision int64) {
	e.Helper()
	_, err := e.kv.Compact(e.ctx, &pb.CompactionRequest{Revision: revision})
	e.ok(err)
}

func (e *env) ok(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

func (e *env) check(what string, got, want any) {
	e.Helper()
	if g, w := fmt.Sprintf("%v", got), fmt.Sprintf("%v", want); g != w {
		e.Fatalf("%s: got %s, want %s", what, g, w)
	}
}

// names are the keys without the test's prefix, in the order of the answer.
func (e *env) names(kvs []*mvccpb.KeyValue) string {
	out := ""
	for i, kv := range kvs {
		if i > 0 {
			out += " "
		}
		out += string(kv.Key[len(e.prefix):])
	}
	return out
}

func opPut(key []byte, value string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: []byte(value)}}}
}

func opGet(key []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}}
}

func opGetAt(key []byte, revision int64) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key, Revision: revision}}}
}

func opDelete(key, end []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: key, RangeEnd: end}}}
}

func opTxn(request *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: request}}
}
