// Package rangestream drives KV.RangeStream, which etcd has since 3.7.
package rangestream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

type env struct {
	testing.TB
	ctx    context.Context
	client *clientv3.Client
	kv     pb.KVClient
	prefix string
}

func setup(t *testing.T) *env {
	t.Helper()
	endpoint := os.Getenv("E2E_ENDPOINT")
	if endpoint == "" {
		t.Fatal("E2E_ENDPOINT is not set")
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return &env{t, ctx, client, pb.NewKVClient(client.ActiveConnection()), fmt.Sprintf("stream/%s/%d/", t.Name(), time.Now().UnixNano())}
}

func (e *env) fill(count, size int) {
	e.Helper()
	for i := 0; i < count; i++ {
		if _, err := e.client.Put(e.ctx, fmt.Sprintf("%s%05d", e.prefix, i), strings.Repeat("v", size)); err != nil {
			e.Fatal(err)
		}
	}
}

func (e *env) request() *pb.RangeRequest {
	return &pb.RangeRequest{Key: []byte(e.prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(e.prefix))}
}

func (e *env) chunks(request *pb.RangeRequest) ([]*pb.RangeResponse, error) {
	e.Helper()
	stream, err := e.kv.RangeStream(e.ctx, request)
	if err != nil {
		return nil, err
	}
	var out []*pb.RangeResponse
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		out = append(out, r.RangeResponse)
	}
}

// merged is what all chunks say together; it must be what Range says.
func (e *env) merged(request *pb.RangeRequest) (*pb.RangeResponse, int) {
	e.Helper()
	chunks, err := e.chunks(request)
	if err != nil {
		e.Fatal(err)
	}
	whole := &pb.RangeResponse{}
	for i, chunk := range chunks {
		if last := i == len(chunks)-1; !last && (chunk.Header != nil || chunk.More || chunk.Count != 0) {
			e.Fatalf("chunk %d of %d has header %v, more %v, count %d", i, len(chunks), chunk.Header, chunk.More, chunk.Count)
		}
		proto.Merge(whole, chunk)
	}
	return whole, len(chunks)
}

func (e *env) sameAsRange(request *pb.RangeRequest) int {
	e.Helper()
	want, err := e.kv.Range(e.ctx, request)
	if err != nil {
		e.Fatal(err)
	}
	got, chunks := e.merged(request)
	if !proto.Equal(got, want) {
		e.Fatalf("%v:\nstream header %v, %d kvs, count %d, more %v\nrange  header %v, %d kvs, count %d, more %v", request,
			got.Header, len(got.Kvs), got.Count, got.More, want.Header, len(want.Kvs), want.Count, want.More)
	}
	return chunks
}

func TestSameAsRange(t *testing.T) {
	e := setup(t)
	e.fill(1000, 100)
	old := e.revision()
	e.fill(30, 50)
	variants := map[string]func(*pb.RangeRequest){
		"all":                func(*pb.RangeRequest) {},
		"limit":              func(r *pb.RangeRequest) { r.Limit = 137 },
		"limit of one":       func(r *pb.RangeRequest) { r.Limit = 1 },
		"limit above":        func(r *pb.RangeRequest) { r.Limit = 5000 },
		"limit as the count": func(r *pb.RangeRequest) { r.Limit = 1000 },
		"keys only":          func(r *pb.RangeRequest) { r.KeysOnly = true },
		"count only":         func(r *pb.RangeRequest) { r.CountOnly = true },
		"old revision":       func(r *pb.RangeRequest) { r.Revision = old },
		"serializable":       func(r *pb.RangeRequest) { r.Serializable = true },
		"ascending by key":   func(r *pb.RangeRequest) { r.SortOrder = pb.RangeRequest_ASCEND },
		"single key":         func(r *pb.RangeRequest) { r.Key, r.RangeEnd = append(r.Key, "00007"...), nil },
		"nothing":            func(r *pb.RangeRequest) { r.Key, r.RangeEnd = append(r.Key, "none"...), nil },
		"tail":               func(r *pb.RangeRequest) { r.Key = append(r.Key, "00500"...) },
	}
	for name, change := range variants {
		t.Run(name, func(t *testing.T) {
			request := e.request()
			change(request)
			chunks := (&env{t, e.ctx, e.client, e.kv, e.prefix}).sameAsRange(request)
			if name == "all" && chunks < 2 {
				t.Fatalf("1000 keys in %d chunk", chunks)
			}
			if name == "count only" && chunks != 1 {
				t.Fatalf("a count in %d chunks", chunks)
			}
		})
	}
}

func TestLargeValuesComeInSmallChunks(t *testing.T) {
	e := setup(t)
	e.fill(60, 300_000)
	chunks, err := e.chunks(e.request())
	if err != nil {
		t.Fatal(err)
	}
	kvs := 0
	for _, chunk := range chunks {
		kvs += len(chunk.Kvs)
		if size := proto.Size(chunk); size > 4<<20 {
			t.Fatalf("a chunk of %d bytes", size)
		}
	}
	if kvs != 60 || len(chunks) < 5 {
		t.Fatalf("%d keys in %d chunks", kvs, len(chunks))
	}
}

// Writes during the stream do not show: it is pinned to the revision at which it began.
func TestPinnedToOneRevision(t *testing.T) {
	e := setup(t)
	e.fill(800, 4000)
	begin := e.revision()
	stream, err := e.kv.RangeStream(e.ctx, e.request())
	if err != nil {
		t.Fatal(err)
	}
	whole := &pb.RangeResponse{}
	for i := 0; ; i++ {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		proto.Merge(whole, r.RangeResponse)
		if _, err := e.client.Put(e.ctx, fmt.Sprintf("%s%05d", e.prefix, 799-i), "new"); err != nil {
			t.Fatal(err)
		}
		if _, err := e.client.Delete(e.ctx, fmt.Sprintf("%s%05d", e.prefix, 700-i)); err != nil {
			t.Fatal(err)
		}
	}
	if len(whole.Kvs) != 800 || whole.Count != 800 || whole.Header.Revision != begin {
		t.Fatalf("%d kvs, count %d, revision %d, began at %d", len(whole.Kvs), whole.Count, whole.Header.Revision, begin)
	}
	for i, kv := range whole.Kvs {
		if kv.ModRevision > begin || len(kv.Value) != 4000 || string(kv.Key) != fmt.Sprintf("%s%05d", e.prefix, i) {
			t.Fatalf("key %d: %s at %d, %d bytes", i, kv.Key, kv.ModRevision, len(kv.Value))
		}
	}
}

func TestRefusals(t *testing.T) {
	e := setup(t)
	e.fill(10, 10)
	cases := []struct {
		name   string
		change func(*pb.RangeRequest)
		code   codes.Code
		text   string
	}{
		{"descending", func(r *pb.RangeRequest) { r.SortOrder = pb.RangeRequest_DESCEND }, codes.Unimplemented, "RangeStream does not support custom sort orders"},
		{"by value", func(r *pb.RangeRequest) { r.SortOrder, r.SortTarget = pb.RangeRequest_ASCEND, pb.RangeRequest_VALUE }, codes.Unimplemented, "RangeStream does not support custom sort orders"},
		{"min mod", func(r *pb.RangeRequest) { r.MinModRevision = 1 }, codes.Unimplemented, "RangeStream does not support revision filters"},
		{"max mod", func(r *pb.RangeRequest) { r.MaxModRevision = 9 }, codes.Unimplemented, "RangeStream does not support revision filters"},
		{"min create", func(r *pb.RangeRequest) { r.MinCreateRevision = 1 }, codes.Unimplemented, "RangeStream does not support revision filters"},
		{"max create", func(r *pb.RangeRequest) { r.MaxCreateRevision = 9 }, codes.Unimplemented, "RangeStream does not support revision filters"},
		{"no key", func(r *pb.RangeRequest) { r.Key = nil }, codes.InvalidArgument, "etcdserver: key is not provided"},
		{"future", func(r *pb.RangeRequest) { r.Revision = 1 << 40 }, codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			request := e.request()
			c.change(request)
			_, err := e.chunks(request)
			if got := status.Convert(err); got.Code() != c.code || got.Message() != c.text {
				t.Fatalf("%v, want %s %q", err, c.code, c.text)
			}
		})
	}
}

func TestClient(t *testing.T) {
	e := setup(t)
	e.fill(500, 100)
	stream, err := e.client.GetStream(e.ctx, e.prefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	kvs := 0
	for r := range stream {
		if err := r.Err(); err != nil {
			t.Fatal(err)
		}
		kvs += len(r.RangeResponse.GetKvs())
	}
	if kvs != 500 {
		t.Fatalf("%d keys", kvs)
	}
}

func (e *env) revision() int64 {
	e.Helper()
	r, err := e.client.Get(e.ctx, e.prefix)
	if err != nil {
		e.Fatal(err)
	}
	return r.Header.Revision
}
