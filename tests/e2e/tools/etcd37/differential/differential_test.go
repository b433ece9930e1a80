// Package differential asks two fresh servers, ours and a real etcd 3.7, for the same ranges as streams, and wants of each what
// RangeStream promises, and of both the same. E2E_SEED repeats a run.
package differential

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// side is one of the two servers.
type side struct {
	name string
	pb.KVClient
	pb.LeaseClient
}

func connect(t *testing.T, name, variable string) *side {
	t.Helper()
	endpoint := os.Getenv(variable)
	if endpoint == "" {
		t.Fatalf("%s is not set", variable)
	}
	conn, err := grpc.NewClient(strings.TrimPrefix(endpoint, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &side{name, pb.NewKVClient(conn), pb.NewLeaseClient(conn)}
}

// twins are the two servers with the same history.
type twins struct {
	*testing.T
	ctx             context.Context
	ours, reference *side
	seed            int64
	*rand.Rand
	head, compacted int64
}

func setup(t *testing.T) *twins {
	t.Helper()
	seed := time.Now().UnixNano()
	if s := os.Getenv("E2E_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseInt(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return &twins{
		T: t, ctx: ctx, seed: seed, Rand: rand.New(rand.NewSource(seed)),
		ours: connect(t, "ours", "E2E_ENDPOINT"), reference: connect(t, "etcd", "E2E_REFERENCE_ENDPOINT"),
	}
}

// write changes both.
func (w *twins) write(call func(*side) (*pb.ResponseHeader, error)) {
	w.Helper()
	ours, err := call(w.ours)
	if err != nil {
		w.Fatal(err)
	}
	reference, err := call(w.reference)
	if err != nil {
		w.Fatal(err)
	}
	if w.head = reference.Revision; ours.Revision != w.head {
		w.Fatalf("ours is at revision %d, etcd at %d", ours.Revision, w.head)
	}
}

func (w *twins) put(key string, size int, lease int64) {
	w.Helper()
	r := &pb.PutRequest{Key: []byte(key), Value: []byte(strings.Repeat(strconv.Itoa(w.Intn(10)), size)), Lease: lease}
	w.write(func(s *side) (*pb.ResponseHeader, error) { got, err := s.Put(w.ctx, r); return got.GetHeader(), err })
}

func (w *twins) remove(key string) {
	w.Helper()
	r := &pb.DeleteRangeRequest{Key: []byte(key)}
	w.write(func(s *side) (*pb.ResponseHeader, error) {
		got, err := s.DeleteRange(w.ctx, r)
		return got.GetHeader(), err
	})
}

func (w *twins) compact(revision int64) {
	w.Helper()
	r := &pb.CompactionRequest{Revision: revision}
	w.write(func(s *side) (*pb.ResponseHeader, error) {
		got, err := s.Compact(w.ctx, r)
		return got.GetHeader(), err
	})
	w.compacted = revision
}

// answer is a whole answer, by Range or by RangeStream, or its error.
type answer struct {
	*pb.RangeResponse
	code codes.Code
	text string
}

func answered(r *pb.RangeResponse, err error) answer {
	if err != nil {
		return answer{nil, status.Code(err), status.Convert(err).Message()}
	}
	for _, kv := range r.Kvs {
		if len(kv.Value) == 0 {
			kv.Lease = 0 // with keys_only, etcd says it in 3.6 and not in 3.7
		}
	}
	r.Header.ClusterId, r.Header.MemberId, r.Header.RaftTerm = 0, 0, 0
	return answer{RangeResponse: r}
}

func (a answer) equal(b answer) bool {
	return a.code == b.code && a.text == b.text && proto.Equal(a.RangeResponse, b.RangeResponse)
}

func (a answer) String() string {
	if a.code != codes.OK {
		return fmt.Sprintf("%s %q", a.code, a.text)
	}
	return fmt.Sprintf("header %v, %d keys, count %d, more %v", a.Header, len(a.Kvs), a.Count, a.More)
}

func (w *twins) ranged(s *side, r *pb.RangeRequest) answer { return answered(s.Range(w.ctx, r)) }

// chunkBytes is what a chunk may have: twice max-request-bytes, and then as many keys again.
const chunkBytes = 4 * 1572864

// streamed merges a stream, and holds its chunks to what each of them promises. between is called after each chunk.
func (w *twins) streamed(s *side, r *pb.RangeRequest, between func(chunk int)) answer {
	w.Helper()
	stream, err := s.RangeStream(w.ctx, r)
	if err != nil {
		return answered(nil, err)
	}
	whole, last, ended := &pb.RangeResponse{}, "", false
	for chunk := 0; ; chunk++ {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) && ended {
			return answered(whole, nil)
		}
		if err != nil {
			return answered(nil, err)
		}
		got := part.RangeResponse
		if ended {
			w.Errorf("%s, %v: chunk %d comes after the last one", s.name, r, chunk)
		}
		if ended = got.Header != nil; !ended && (got.More || got.Count != 0 || len(got.Kvs) == 0) {
			w.Errorf("%s, %v: chunk %d has %d keys, more %v, count %d and no header", s.name, r, chunk, len(got.Kvs), got.More, got.Count)
		}
		if size := proto.Size(got); size > chunkBytes || chunk == 0 && r.Limit >= 0 && len(got.Kvs) > 10 {
			w.Errorf("%s, %v: chunk %d has %d keys, %d bytes", s.name, r, chunk, len(got.Kvs), size)
		}
		for _, kv := range got.Kvs {
			if len(whole.Kvs)+len(got.Kvs) > 1 && string(kv.Key) <= last {
				w.Errorf("%s, %v: key %q comes after %q", s.name, r, kv.Key, last)
			}
			last = string(kv.Key)
		}
		proto.Merge(whole, got)
		if between != nil {
			between(chunk)
		}
	}
}

// unlike is where two answers differ first.
func unlike(got, want answer) string {
	for i, kv := range want.GetKvs() {
		if i >= len(got.GetKvs()) || !proto.Equal(got.Kvs[i], kv) {
			return fmt.Sprintf("%v, with %.200v\nwant: %v, with %.200v", got, got.GetKvs()[min(i, len(got.GetKvs())):], want, want.Kvs[i:])
		}
	}
	return fmt.Sprintf("%v\nwant: %v", got, want)
}

// compare wants one answer from both, whole and as a stream, unless the request is one that only Range takes.
func (w *twins) compare(r *pb.RangeRequest) (streamed answer) {
	w.Helper()
	clone := func() *pb.RangeRequest { return proto.Clone(r).(*pb.RangeRequest) }
	if r.SortOrder == pb.RangeRequest_NONE && r.SortTarget != pb.RangeRequest_KEY && pb.RangeRequest_SortTarget_name[int32(r.SortTarget)] != "" {
		// etcd takes it, and sorts each chunk by itself, so that keys come twice and others never.
		r = proto.Clone(r).(*pb.RangeRequest)
		r.SortOrder = pb.RangeRequest_ASCEND
	}
	ours, reference := w.streamed(w.ours, clone(), nil), w.streamed(w.reference, clone(), nil)
	if !ours.equal(reference) {
		w.Errorf("%v\n got: %s", r, unlike(ours, reference))
	}
	if reference.code == codes.Unimplemented {
		return ours
	}
	for _, s := range []*side{w.ours, w.reference} {
		if whole := w.ranged(s, clone()); !whole.equal(reference) {
			w.Errorf("%s, %v, by Range\n got: %s", s.name, r, unlike(whole, reference))
		}
	}
	return ours
}
