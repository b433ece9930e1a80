package differential

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// mismatch is a request that the two servers have answered differently.
type mismatch struct {
	step      int
	request   string
	got, want string
}

func (m *mismatch) String() string {
	return fmt.Sprintf("step %d: %s\n got: %.2000s\nwant: %.2000s", m.step, m.request, m.got, m.want)
}

// play sends steps to a fresh pair and compares what is answered.
type play struct {
	*pair
	ctx         context.Context
	at          revisions
	compactions map[int64]bool
	streams     [slots]*twinStream
	events      int
	sent        []string // the requests as they were sent
}

// twinStream is a stream to each of both.
type twinStream struct {
	of    map[*side]*stream
	start int64 // at which the last of its watchers starts
}

// history is a step that compares all events since the last compaction.
type history struct{}

func (history) String() string { return "all events since the last compaction" }

// run plays the steps on fresh servers, to the first mismatch.
func run(t testing.TB, p *pair, steps []fmt.Stringer) (*play, *mismatch) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	defer p.stop()
	played := &play{pair: p, ctx: ctx, at: revisions{head: 1}, compactions: map[int64]bool{}}
	for i, step := range steps {
		request := played.at.resolve(step)
		played.sent = append(played.sent, fmt.Sprintf("%T %v", request, request))
		if got, want := played.step(request); got != want {
			return played, &mismatch{i, played.sent[i], got, want}
		}
	}
	return played, nil
}

// step gives what ours and the reference have answered.
func (p *play) step(request fmt.Stringer) (got, want string) {
	switch r := request.(type) {
	case history:
		return p.history()
	case *watchers:
		return p.watchers(r)
	case *pb.CompactionRequest:
		return p.compact(r)
	case *pb.HashKVRequest:
		if p.compactions[r.Revision] {
			// etcd keeps the hashes that its last ten compactions made, until it is restarted: another hash of the same revision.
			r.Revision = 0
		}
	}
	return p.ask(request)
}

func (p *play) ask(request fmt.Stringer) (got, want string) {
	ours, reference := both(p.pair, func(s *side) reply { return s.ask(p.ctx, request) })
	p.at.head = max(p.at.head, reference.revision)
	return ours.text, reference.text
}

func (p *play) compact(r *pb.CompactionRequest) (got, want string) {
	if p.at.compacted == 0 && r.Revision == 0 {
		// etcd would keep the hash of "compaction at 0" and from then on answer it to HashKV of revision 0, the current one.
		r.Revision = 1
	}
	for p.at.compacted < r.Revision && r.Revision <= p.at.head && p.putAgain(r.Revision) {
		// etcd would lose what the transaction of this revision deleted and then put: its compaction keeps the deletion alone.
		r.Revision--
	}
	for slot := range p.streams {
		// Watchers that lag behind a compaction, and previous values that it takes away, differ.
		p.settle(slot)
	}
	got, want = p.ask(r)
	if got == want && r.Revision > p.at.compacted && r.Revision <= p.at.head && !strings.Contains(want, " \"etcdserver: ") {
		p.at.compacted = r.Revision
		p.compactions[r.Revision] = true
	}
	return got, want
}

// putAgain says whether a key was there before the revision, and was made anew by it.
func (p *play) putAgain(revision int64) bool {
	keys := func(at int64) map[string]int64 {
		made := map[string]int64{}
		if at == 0 {
			return made
		}
		all, err := p.reference.kv.Range(p.ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: at, KeysOnly: true, Serializable: true})
		if err != nil {
			return made // the answers that are compared will show it
		}
		for _, kv := range all.Kvs {
			made[string(kv.Key)] = kv.CreateRevision
		}
		return made
	}
	before := keys(revision - 1)
	for key, made := range keys(revision) {
		if _, was := before[key]; was && made == revision {
			return true
		}
	}
	return false
}

// watchers ends the slot's stream, and opens the next one.
func (p *play) watchers(w *watchers) (got, want string) {
	if last := p.streams[w.slot]; last != nil {
		p.settle(w.slot)
		p.streams[w.slot] = nil
		ours, reference := both(p.pair, func(s *side) map[int64][]string { return last.of[s].end() })
		for id := int64(broken); id < sentinel; id++ {
			if got, want := firstUnlike(ours[id], reference[id]); got != want {
				return fmt.Sprintf("watcher %d: %s", id, got), want
			}
			p.events += max(len(reference[id])-1, 0)
		}
	}
	if len(w.Creates) == 0 {
		return "", ""
	}
	next := &twinStream{}
	requests := []*pb.WatchRequest{}
	for _, c := range w.Creates {
		if c.StartRevision != 0 {
			c.StartRevision = max(c.StartRevision, p.at.compacted+1)
		}
		next.start = max(next.start, c.StartRevision)
		requests = append(requests, create(c))
	}
	ours, reference := both(p.pair, func(s *side) *stream { return s.open(p.ctx, requests) })
	next.of = map[*side]*stream{p.ours: ours, p.reference: reference}
	p.streams[w.slot] = next
	return "", ""
}

// settle waits until the slot's watchers have been told everything there is to tell.
func (p *play) settle(slot int) {
	open := p.streams[slot]
	if open == nil {
		return
	}
	for p.at.head < open.start {
		// As long as one watcher has not started, a stream says nothing about its progress.
		if _, want := p.ask(put(beacon, "")); strings.Contains(want, " \"etcdserver: ") {
			return // an alarm keeps the revision where it is
		}
	}
	both(p.pair, func(s *side) error {
		open.of[s].catchUp(p.at.head)
		return nil
	})
}

func (p *play) history() (got, want string) {
	if p.at.head <= max(p.at.compacted, 1) { // revision 1 is the empty store
		return "", ""
	}
	all := &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: p.at.compacted + 1, PrevKv: true}
	told := func(s *side) []string {
		w := s.open(p.ctx, []*pb.WatchRequest{create(all)})
		w.catchUp(p.at.head)
		told := w.end()
		return append(told[0], told[broken]...)
	}
	ours, reference := both(p.pair, told)
	p.events += len(reference) - 1
	return firstUnlike(ours, reference)
}

func firstUnlike(ours, reference []string) (got, want string) {
	for i := range max(len(ours), len(reference)) {
		if at(ours, i) != at(reference, i) {
			return fmt.Sprintf("event %d: %s", i, at(ours, i)), at(reference, i)
		}
	}
	return "", ""
}

func at(events []string, i int) string {
	if i < len(events) {
		return events[i]
	}
	return "none"
}
