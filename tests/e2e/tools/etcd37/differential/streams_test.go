package differential

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// key is one of five hundred.
func (w *twins) key() string { return fmt.Sprintf("k%03d", w.Intn(500)) }

func (w *twins) oneIn(n int) bool { return w.Intn(n) == 0 }

// fill makes a history with values of many sizes, deletions, leases and a compaction.
func (w *twins) fill() {
	w.Helper()
	w.write(func(s *side) (*pb.ResponseHeader, error) {
		got, err := s.LeaseGrant(w.ctx, &pb.LeaseGrantRequest{ID: 7, TTL: 3600})
		return got.GetHeader(), err
	})
	for i := range 900 {
		switch size := 1 << w.Intn(14); {
		case w.oneIn(6):
			w.remove(w.key())
		case w.oneIn(5):
			w.put(w.key(), size, 7)
		default:
			w.put(w.key(), w.Intn(size), 0)
		}
		if i == 500 {
			w.compact(w.head - 100)
		}
	}
}

// request has any options, of which a stream takes not all.
func (w *twins) request() *pb.RangeRequest {
	r := &pb.RangeRequest{Key: []byte(w.key()), Serializable: w.oneIn(4), KeysOnly: w.oneIn(5), CountOnly: w.oneIn(8)}
	switch w.Intn(6) {
	case 0:
		r.Key, r.RangeEnd = []byte{0}, []byte{0}
	case 1:
		r.RangeEnd = []byte{0}
	case 2, 3, 4:
		r.RangeEnd = []byte(w.key())
	}
	switch w.Intn(4) {
	case 0:
		r.Limit = w.Int63n(30)
	case 1:
		r.Limit = w.Int63n(600) - 1
	}
	switch w.Intn(8) {
	case 0, 1, 2:
		r.Revision = w.compacted + w.Int63n(w.head-w.compacted+1)
	case 3:
		r.Revision = []int64{-3, 1, w.compacted - 1, w.compacted, w.head, w.head + 1}[w.Intn(6)]
	}
	if w.oneIn(8) {
		r.SortOrder, r.SortTarget = pb.RangeRequest_SortOrder(w.Intn(4)), pb.RangeRequest_SortTarget(w.Intn(6))
	}
	if w.oneIn(12) {
		*[]*int64{&r.MinModRevision, &r.MaxModRevision, &r.MinCreateRevision, &r.MaxCreateRevision}[w.Intn(4)] = w.Int63n(w.head) - 1
	}
	if w.oneIn(50) {
		r.Key = nil
	}
	return r
}

// TestRandomStreams must come first: it wants fresh servers.
func TestRandomStreams(t *testing.T) {
	w := setup(t)
	t.Logf("E2E_SEED=%d", w.seed)
	w.fill()
	seen := map[codes.Code]int{}
	for range 700 {
		seen[w.compare(w.request()).code]++
		if t.Failed() {
			t.FailNow()
		}
	}
	for _, code := range []codes.Code{codes.OK, codes.Unimplemented, codes.OutOfRange, codes.InvalidArgument} {
		if seen[code] == 0 {
			t.Errorf("no request got %s: %v", code, seen)
		}
	}
	t.Logf("%v", seen)
}

// TestEdgesOfStreams has what random requests hardly hit.
func TestEdgesOfStreams(t *testing.T) {
	w := setup(t)
	for i := range 25 {
		w.put(fmt.Sprintf("edge/%02d", i), 10, 0)
	}
	all := func(change func(*pb.RangeRequest)) *pb.RangeRequest {
		r := &pb.RangeRequest{Key: []byte("edge/"), RangeEnd: []byte("edge0")}
		change(r)
		return r
	}
	// Around the ten keys of the first chunk and the twenty of the second.
	for _, limit := range []int64{-1, 0, 1, 9, 10, 11, 24, 25, 26, 29, 30, 31, 1 << 62} {
		w.compare(all(func(r *pb.RangeRequest) { r.Limit = limit }))
		w.compare(all(func(r *pb.RangeRequest) { r.Limit, r.KeysOnly = limit, true }))
		w.compare(all(func(r *pb.RangeRequest) { r.Limit, r.CountOnly = limit, true }))
	}
	for _, end := range []string{"", "edge/", "edge", "edge/00", "edge/10", "\x00"} {
		w.compare(all(func(r *pb.RangeRequest) { r.RangeEnd = []byte(end) }))
	}
	for _, order := range []pb.RangeRequest_SortOrder{pb.RangeRequest_NONE, pb.RangeRequest_ASCEND, pb.RangeRequest_DESCEND, 9, -1} {
		for _, target := range []pb.RangeRequest_SortTarget{pb.RangeRequest_KEY, pb.RangeRequest_VERSION, pb.RangeRequest_VALUE, 9, -1} {
			w.compare(all(func(r *pb.RangeRequest) { r.SortOrder, r.SortTarget = order, target }))
		}
	}
	for _, change := range []func(*pb.RangeRequest){
		func(r *pb.RangeRequest) { r.Key = nil },
		func(r *pb.RangeRequest) { r.Key, r.SortOrder = nil, pb.RangeRequest_DESCEND },
		func(r *pb.RangeRequest) { r.MinModRevision = -1 },
		func(r *pb.RangeRequest) { r.MaxCreateRevision, r.CountOnly = 1, true },
		func(r *pb.RangeRequest) { r.MinModRevision, r.SortOrder = 1, pb.RangeRequest_DESCEND },
		func(r *pb.RangeRequest) { r.Revision, r.MinModRevision = 1<<40, 1 },
		func(r *pb.RangeRequest) { r.Revision, r.CountOnly = 1<<40, true },
		func(r *pb.RangeRequest) { r.CountOnly, r.KeysOnly = true, true },
	} {
		w.compare(all(change))
	}
}

// TestLargeValues come in chunks that the size of a request bounds.
func TestLargeValues(t *testing.T) {
	w := setup(t)
	for i := range 40 {
		w.put(fmt.Sprintf("large/%02d", i), 400_000, 0)
	}
	for _, limit := range []int64{0, 7, 33} {
		w.compare(&pb.RangeRequest{Key: []byte("large/"), RangeEnd: []byte("large0"), Limit: limit})
	}
}

// wide fills keys that no connection takes at once, so that what comes during the stream meets one that has not ended.
func (w *twins) wide(prefix string) *pb.RangeRequest {
	w.Helper()
	for i := range 200 {
		w.put(fmt.Sprintf("%s/%03d", prefix, i), 40_000, 0)
	}
	return &pb.RangeRequest{Key: []byte(prefix + "/"), RangeEnd: []byte(prefix + "0")}
}

// TestPinnedToOneRevision writes between chunks: the stream says what was there when it began.
func TestPinnedToOneRevision(t *testing.T) {
	w := setup(t)
	request := w.wide("pinned")
	for _, s := range []*side{w.ours, w.reference} {
		want := w.ranged(s, request)
		got := w.streamed(s, request, func(chunk int) {
			if chunk > 2 {
				return // as many writes to both
			}
			for _, key := range []string{fmt.Sprintf("pinned/%03d", 199-chunk), fmt.Sprintf("pinned/%03d+", 190-chunk)} {
				if _, err := s.Put(w.ctx, &pb.PutRequest{Key: []byte(key), Value: []byte("new")}); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.DeleteRange(w.ctx, &pb.DeleteRangeRequest{Key: []byte(fmt.Sprintf("pinned/%03d", 150-chunk))}); err != nil {
				t.Fatal(err)
			}
		})
		if !got.equal(want) {
			t.Errorf("%s\n got: %v\nwant: %v", s.name, got, want)
		}
	}
}

// TestCompactedUnderway compacts away the revision of a stream that has not ended.
func TestCompactedUnderway(t *testing.T) {
	w := setup(t)
	request := w.wide("underway")
	for _, s := range []*side{w.ours, w.reference} {
		got := w.streamed(s, request, func(chunk int) {
			if chunk > 0 {
				return
			}
			put, err := s.Put(w.ctx, &pb.PutRequest{Key: []byte("underway/000"), Value: []byte(strings.Repeat("n", 10))})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Compact(w.ctx, &pb.CompactionRequest{Revision: put.Header.Revision, Physical: true}); err != nil {
				t.Fatal(err)
			}
		})
		if got.code != codes.OutOfRange || got.text != "etcdserver: mvcc: required revision has been compacted" {
			t.Errorf("%s: %v", s.name, got)
		}
	}
}
