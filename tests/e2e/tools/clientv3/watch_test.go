package clientv3

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func (e *env) all() *pb.WatchCreateRequest {
	return &pb.WatchCreateRequest{Key: e.key(""), RangeEnd: e.end()}
}

// describe is "PUT k=v" or "DELETE k", with the revision counted from base.
func (e *env) describe(base int64, events []*mvccpb.Event) string {
	out := ""
	for i, event := range events {
		if i > 0 {
			out += ", "
		}
		out += fmt.Sprintf("%s %s", event.Type, event.Kv.Key[len(e.prefix):])
		if event.Type == mvccpb.PUT {
			out += "=" + string(event.Kv.Value)
		}
		out += fmt.Sprintf("@%d", event.Kv.ModRevision-base)
	}
	return out
}

func TestWatchLive(t *testing.T) {
	e := setup(t)
	s := e.openStream()
	base := e.revision()
	created := s.watch(e.all())
	e.check("created header", created.Header.Revision, base)
	e.put("a", "1")
	e.put("a", "2")
	e.delete("a")
	e.delete("a")
	e.put("b", "")
	e.check("events", e.describe(base, s.events(4)), "PUT a=1@1, PUT a=2@2, DELETE a@3, PUT b=@4")
	s.silent("nothing more", 300*time.Millisecond)
}

func TestWatchEventContents(t *testing.T) {
	e := setup(t)
	lease, err := e.client.Grant(e.ctx, 100)
	e.ok(err)
	s := e.openStream()
	s.watch(e.all())
	r1 := e.putLease("k", "1", int64(lease.ID))
	r2 := e.delete("k")
	events := s.events(2)
	kv := events[0].Kv
	e.check("put", []any{string(kv.Value), kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease}, []any{"1", r1, r1, 1, int64(lease.ID)})
	kv = events[1].Kv
	e.check("delete has key and revision only", []any{len(kv.Value), kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease}, []any{0, 0, r2, 0, 0})
	e.check("no prev_kv unasked", events[1].PrevKv == nil, true)
}

func TestWatchFromThePast(t *testing.T) {
	e := setup(t)
	base := e.revision()
	e.put("a", "1")
	e.put("a", "2")
	e.txn(&pb.TxnRequest{Success: []*pb.RequestOp{opPut(e.key("c"), "t"), opDelete(e.key("a"), nil), opPut(e.key("b"), "t")}})
	outside := e.revision()
	s := e.openStream()
	request := e.all()
	request.StartRevision = base + 2
	s.watch(request)
	first := s.recv()
	e.check("catch-up header is the current revision", first.Header.Revision, outside)
	e.check("events keep the order of the ops", e.describe(base, first.Events), "PUT a=2@2, PUT c=t@3, DELETE a@3, PUT b=t@3")
	e.put("live", "x")
	e.check("goes over to live", e.describe(base, s.events(1)), "PUT live=x@4")
}

func TestWatchRanges(t *testing.T) {
	e := setup(t)
	base := e.revision()
	for _, name := range []string{"a", "b", "c", "d"} {
		e.put(name, "")
	}
	watch := func(key, end []byte) string {
		s := e.openStream()
		s.watch(&pb.WatchCreateRequest{Key: key, RangeEnd: end, StartRevision: base + 1})
		return e.describe(base, s.recv().Events)
	}
	e.check("single", watch(e.key("b"), nil), "PUT b=@2")
	e.check("half-open", watch(e.key("b"), e.key("d")), "PUT b=@2, PUT c=@3")
	e.check("from key", watch(e.key("c"), []byte{0}), "PUT c=@3, PUT d=@4")
	s := e.openStream()
	s.watch(&pb.WatchCreateRequest{StartRevision: base + 1, RangeEnd: []byte{0}})
	e.check("empty key to the end is everything", e.describe(base, s.recv().Events), "PUT a=@1, PUT b=@2, PUT c=@3, PUT d=@4")
}

func TestWatchPrevKv(t *testing.T) {
	e := setup(t)
	base := e.revision()
	e.put("k", "1")
	e.put("k", "2")
	e.delete("k")
	check := func(what string, events []*mvccpb.Event) {
		e.check(what+" create", events[0].PrevKv == nil, true)
		e.check(what+" update", []any{string(events[1].PrevKv.Value), events[1].PrevKv.ModRevision}, []any{"1", base + 1})
		e.check(what+" delete", []any{string(events[2].PrevKv.Value), events[2].PrevKv.ModRevision, events[2].PrevKv.Version}, []any{"2", base + 2, 2})
	}
	s := e.openStream()
	request := e.all()
	request.PrevKv, request.StartRevision = true, base+1
	s.watch(request)
	check("past", s.events(3))
	base = e.revision()
	e.put("k", "1")
	e.put("k", "2")
	e.delete("k")
	check("live", s.events(3))

	base = e.revision()
	e.put("k", "1")
	e.put("k", "2")
	e.put("k", "3")
	e.compact(base + 2)
	s = e.openStream()
	request.StartRevision = base + 2
	s.watch(request)
	events := s.events(2)
	// etcd reads previous values back and has none of a compacted revision; a server that still knows it may tell.
	if prev := events[0].PrevKv; prev != nil {
		e.check("compacted previous value", string(prev.Value), "1")
	}
	e.check("the next has one", string(events[1].PrevKv.Value), "2")
}

func TestWatchFilters(t *testing.T) {
	e := setup(t)
	base := e.revision()
	s := e.openStream()
	request := e.all()
	request.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}
	s.watch(request)
	other := e.openStream()
	request = e.all()
	request.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}
	other.watch(request)
	e.put("a", "1")
	e.delete("a")
	e.check("no puts", e.describe(base, s.events(1)), "DELETE a@2")
	e.check("no deletes", e.describe(base, other.events(1)), "PUT a=1@1")
	s.silent("filtered to nothing sends nothing", 200*time.Millisecond)

	both := e.openStream()
	request = e.all()
	request.StartRevision = base + 1
	request.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}
	both.watch(request)
	e.check("past too", e.describe(base, both.events(1)), "PUT a=1@1")
}

func TestWatchIDs(t *testing.T) {
	e := setup(t)
	s := e.openStream()
	request := func(id int64) *pb.WatchCreateRequest { r := e.all(); r.WatchId = id; return r }
	e.check("first free", s.watch(request(0)).WatchId, 0)
	e.check("chosen", s.watch(request(7)).WatchId, 7)
	e.check("next free", s.watch(request(0)).WatchId, 1)

	s.create(request(7))
	r := s.recv()
	e.check("duplicate", []any{r.Created, r.Canceled, r.WatchId, r.CancelReason}, []any{true, true, -1, "mvcc: duplicate watch ID provided on the WatchStream"})
	e.put("k", "1")
	ids := map[int64]bool{}
	for i := 0; i < 3; i++ {
		r := s.recv()
		e.check("one event", len(r.Events), 1)
		ids[r.WatchId] = true
	}
	e.check("each watcher gets it", len(ids), 3)

	s.cancelWatch(7)
	r = s.recv()
	e.check("canceled", []any{r.WatchId, r.Canceled, r.Created, r.CompactRevision}, []any{7, true, false, 0})
	s.cancelWatch(4711)
	s.silent("an unknown id is not answered", 300*time.Millisecond)
	e.check("the id is free again", s.watch(request(7)).WatchId, 7)
	s.cancelWatch(0)
	e.check("zero can be canceled", s.recv().WatchId, 0)
}

func TestWatchRefusals(t *testing.T) {
	e := setup(t)
	s := e.openStream()
	s.create(&pb.WatchCreateRequest{Key: e.key("b"), RangeEnd: e.key("a")})
	r := s.recv()
	e.check("empty range", []any{r.Created, r.Canceled, r.WatchId, r.CancelReason}, []any{true, true, -1, "mvcc: watcher range is empty"})
	request := e.all()
	request.StartRevision = -3
	s.create(request)
	r = s.recv()
	e.check("negative start", []any{r.Created, r.Canceled, r.WatchId, r.CancelReason}, []any{true, true, -1, "etcdserver: mvcc: required revision has been compacted"})
	s.watch(e.all())
	e.put("k", "1")
	e.check("the stream lives on", len(s.events(1)), 1)
}

func TestWatchCompacted(t *testing.T) {
	e := setup(t)
	r1 := e.put("k", "1")
	r2 := e.put("k", "2")
	e.compact(r2)
	s := e.openStream()
	request := e.all()
	request.StartRevision = r1
	created := s.watch(request)
	r := s.recv()
	e.check("canceled", []any{r.Canceled, r.Created, r.WatchId, r.CompactRevision, r.Header.Revision, r.CancelReason}, []any{true, false, created.WatchId, r2, 0, ""})
	request.StartRevision = r2
	s.watch(request)
	e.check("the compacted revision itself", len(s.events(1)), 1)

	w := e.client.Watch(e.ctx, string(e.key("k")), clientv3.WithRev(r1))
	got := <-w
	e.check("clientv3", []any{got.CompactRevision, got.Canceled, got.Err()}, []any{r2, true, "etcdserver: mvcc: required revision has been compacted"})
}

func TestWatchFutureStart(t *testing.T) {
	e := setup(t)
	base := e.revision()
	s := e.openStream()
	request := e.all()
	request.StartRevision = base + 3
	s.watch(request)
	e.put("k", "1")
	e.put("k", "2")
	s.silent("before its start", 300*time.Millisecond)
	e.put("k", "3")
	e.put("k", "4")
	e.check("from its start", e.describe(base, s.events(2)), "PUT k=3@3, PUT k=4@4")
}

func TestWatchFragments(t *testing.T) {
	e := setup(t)
	const total, size = 40, 100_000 // one revision of 4 MB, limit 1.5 MiB + 512 KiB a message
	value := strings.Repeat("v", size)
	for i := 0; i < total; i++ {
		e.put(fmt.Sprintf("k%02d", i), value)
	}
	base := e.revision()
	_, err := e.client.Delete(e.ctx, e.prefix, clientv3.WithPrefix())
	e.ok(err)
	s := e.openStream()
	request := e.all()
	request.StartRevision, request.PrevKv, request.Fragment = base+1, true, true
	s.watch(request)
	seen, fragments := 0, 0
	for seen < total {
		r := s.recv()
		if r.Size() > 2<<20+64<<10 {
			t.Fatalf("a fragment of %d bytes", r.Size())
		}
		if r.Fragment {
			fragments++
		}
		for _, event := range r.Events {
			seen++
			e.check("revision", event.Kv.ModRevision, base+1)
			e.check("previous value", len(event.PrevKv.Value), size)
		}
		if seen == total {
			e.check("the last one says so", r.Fragment, false)
		}
	}
	if fragments == 0 {
		t.Fatal("a revision of 4 MB in no fragments")
	}

	s = e.openStream()
	request.Fragment = false
	s.watch(request)
	e.check("without it, unsplit", len(s.recv().Events), total)
}

// A transaction is never split over messages without fragment, and clientv3 joins fragments again.
func TestWatchWholeRevisions(t *testing.T) {
	e := setup(t)
	s := e.openStream()
	s.watch(e.all())
	joined := e.client.Watch(e.ctx, e.prefix, clientv3.WithPrefix(), clientv3.WithFragment())
	base := e.revision()
	value := strings.Repeat("v", 10_000)
	var ops []*pb.RequestOp
	for i := 0; i < 100; i++ {
		ops = append(ops, opPut(e.key(fmt.Sprintf("k%03d", i)), value))
	}
	for i := 1; i <= 5; i++ {
		e.txn(&pb.TxnRequest{Success: ops})
	}
	for seen := 0; seen < 500; {
		r := s.recv()
		e.check("whole revisions", len(r.Events)%100, 0)
		for _, event := range r.Events {
			e.check("order", event.Kv.ModRevision, base+1+int64(seen/100))
			e.check("op order", string(event.Kv.Key), string(e.key(fmt.Sprintf("k%03d", seen%100))))
			seen++
		}
	}
	for seen := 0; seen < 500; {
		r := <-joined
		e.check("joined", len(r.Events)%100, 0)
		seen += len(r.Events)
	}
}

func TestWatchManyOnOneStream(t *testing.T) {
	e := setup(t)
	s := e.openStream()
	const watchers, keys = 200, 20
	base := e.revision()
	for i := 0; i < watchers; i++ {
		s.watch(&pb.WatchCreateRequest{Key: e.key(fmt.Sprintf("k%02d", i%keys)), StartRevision: base + 1})
	}
	for round := 0; round < 5; round++ {
		for i := 0; i < keys; i++ {
			e.put(fmt.Sprintf("k%02d", i), fmt.Sprint(round))
		}
	}
	got := map[int64][]string{}
	for count := 0; count < watchers*5; {
		r := s.recv()
		for _, event := range r.Events {
			got[r.WatchId] = append(got[r.WatchId], string(event.Kv.Value))
			count++
		}
	}
	for id := int64(0); id < watchers; id++ {
		e.check("each in order", got[id], "[0 1 2 3 4]")
	}
}

func TestWatchRequireLeaderAndClose(t *testing.T) {
	e := setup(t)
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(e.ctx))
	w := e.client.Watch(ctx, string(e.key("k")))
	e.put("k", "1")
	e.check("event", len((<-w).Events), 1)
	cancel()
	for range w { // closes
	}
	s := e.openStream()
	s.watch(e.all())
	s.ok(s.raw.CloseSend())
	e.put("k", "2")
	e.check("a half-closed stream still delivers", string(s.events(1)[0].Kv.Value), "2")
}
