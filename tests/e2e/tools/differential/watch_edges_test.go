package differential

import (
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// watchScript is a stream's requests; the answers are compared watcher by watcher, since their order among each other is free.
type watchScript struct {
	name     string
	requests []*pb.WatchRequest
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
	p := startPair(t, fast)
	defer p.stop()
	send := func(request fmt.Stringer) int64 {
		ours, reference := both(p, func(s *side) reply { return s.ask(t.Context(), request) })
		if ours.text != reference.text {
			t.Fatalf("%v\n got: %.600s\nwant: %.600s", request, ours.text, reference.text)
		}
		return reference.revision
	}
	for _, request := range []fmt.Stringer{
		put("watch/a", "1"), put("watch/b", "1"), put("watch/a", "2"), del("watch/a", ""), put("watch/c", "1"),
	} {
		send(request)
	}
	last := send(put("watch/b", "2"))
	send(&pb.CompactionRequest{Revision: last - 4, Physical: true})
	current := last
	for i := range watchScripts(0, 0, 0) {
		script := watchScripts(last-3, last-4, current)[i]
		name := script.name
		begun := map[*side]*stream{p.ours: p.ours.open(t.Context(), script.requests), p.reference: p.reference.open(t.Context(), script.requests)}
		send(put("watch/b", name))
		send(then(put("watch/c", name), put("watch/d", name)))
		send(del("watch/d", ""))
		current = send(put(beacon, name))
		got, want := both(p, func(s *side) string {
			begun[s].catchUp(current)
			return fmt.Sprint(begun[s].end())
		})
		if got != want {
			t.Errorf("%s\n got: %v\nwant: %v", name, got, want)
		}
	}
}
