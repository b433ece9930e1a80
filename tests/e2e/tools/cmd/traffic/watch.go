package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Segment is one watch from its creation until its stream ends: what follows on the next stream is a segment of its own.
type segment struct {
	id       int
	endpoint int
	open     watchOpen
	whole    bool  // it sees every event
	next     int64 // from where a new stream has to go on
	created  bool
	over     bool
}

// StartWatches keeps several watches on each member, through bare streams and through clientv3.
func (t *traffic) startWatches(ctx context.Context, group *sync.WaitGroup, base int64) {
	for endpoint := range t.conns {
		random := rand.New(rand.NewPCG(t.seed, uint64(1000+endpoint)))
		all := watchOpen{Key: t.prefix, End: t.end(), Start: base + 1, PrevKv: true, Progress: true}
		one := watchOpen{Key: t.prefix + "00", PrevKv: random.IntN(2) == 0}
		puts := watchOpen{Key: t.prefix, End: t.end(), NoDelete: true}
		group.Go(func() { t.keepStream(ctx, endpoint, []watchOpen{all, one, puts}) })
		pieces := watchOpen{Key: t.prefix, End: t.end(), Start: base + 1, Fragment: true, PrevKv: true}
		deletes := watchOpen{Key: t.prefix, End: t.end(), NoPut: true, PrevKv: true, Fragment: true}
		group.Go(func() { t.keepStream(ctx, endpoint, []watchOpen{pieces, deletes}) })
		group.Go(func() { t.keepLibraryWatch(ctx, endpoint, base) })
		group.Go(func() { t.shortWatches(ctx, endpoint, random) })
	}
}

// KeepStream opens the watches again from where they were whenever their stream ends.
func (t *traffic) keepStream(ctx context.Context, endpoint int, opens []watchOpen) {
	segments := make([]*segment, len(opens))
	for i, open := range opens {
		whole := open.Key == t.prefix && open.End == t.end() && !open.NoPut && !open.NoDelete
		segments[i] = &segment{endpoint: endpoint, open: open, whole: whole, next: open.Start}
	}
	for ctx.Err() == nil {
		for i, old := range segments {
			fresh := *old
			fresh.open.Start, fresh.created, fresh.over, fresh.id = old.next, false, false, 0
			segments[i] = &fresh
			t.recordOpen(&fresh, old.id)
			t.replace(old, &fresh)
		}
		t.stream(ctx, endpoint, segments)
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// ShortWatches begin in the past, now and then before what has been compacted, and end soon.
func (t *traffic) shortWatches(ctx context.Context, endpoint int, random *rand.Rand) {
	c := &client{traffic: t, random: random}
	for ctx.Err() == nil {
		open := watchOpen{
			Key: c.key(), Start: max(1, t.latest.Load()-random.Int64N(300)), PrevKv: c.oneOf(2), Fragment: c.oneOf(3),
			NoPut: c.oneOf(8), Progress: c.oneOf(2),
		}
		open.NoDelete = !open.NoPut && c.oneOf(8)
		if c.oneOf(2) {
			open.Key, open.End = c.span()
		}
		switch random.IntN(12) {
		case 0:
			open.Start = 0
		case 1:
			open.Start = t.latest.Load() + random.Int64N(100)
		case 2:
			open.Start = max(1, t.compact.Load()-random.Int64N(10))
		}
		life, cancel := context.WithTimeout(ctx, time.Second+time.Duration(random.Int64N(int64(4*time.Second))))
		s := &segment{endpoint: endpoint, open: open}
		t.recordOpen(s, 0)
		t.stream(life, endpoint, []*segment{s})
		<-life.Done()
		cancel()
	}
}

// Stream runs one gRPC stream with these watches until it ends.
func (t *traffic) stream(parent context.Context, endpoint int, segments []*segment) {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	if endpoint%2 == 0 {
		// Half of the members are asked to end the stream when they have no leader.
		ctx = metadata.AppendToOutgoingContext(ctx, rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)
	}
	err := t.receive(ctx, cancel, endpoint, segments)
	for _, s := range segments {
		if !s.over {
			t.recordEnd(s, err, parent.Err() != nil)
		}
	}
}

func (t *traffic) receive(ctx context.Context, cancel func(), endpoint int, segments []*segment) error {
	stream, err := pb.NewWatchClient(t.conns[endpoint].ActiveConnection()).Watch(ctx)
	if err != nil {
		return err
	}
	byID := map[int64]*segment{}
	for i, s := range segments {
		byID[int64(i+1)] = s
		if err := stream.Send(s.open.wire(int64(i + 1))); err != nil {
			return err
		}
	}
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	asking.Go(func() { askProgress(ctx, stream) })
	for over := 0; over < len(segments); {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		for id, s := range byID {
			if r.WatchId == id || (r.WatchId == -1 && len(r.Events) == 0 && !r.Created && s.created && !s.over) {
				t.recordResponse(s, r)
			}
		}
		over = 0
		for _, s := range segments {
			if s.over {
				over++
			}
		}
	}
	return nil
}

func askProgress(ctx context.Context, stream pb.Watch_WatchClient) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(700 * time.Millisecond):
		}
		request := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
		if stream.Send(request) != nil {
			return
		}
	}
}

func (t *traffic) recordOpen(s *segment, resumes int) {
	s.id = int(t.watches.Add(1))
	t.history.write(record{
		Type: "open", Watch: s.id, Endpoint: s.endpoint, At: t.history.now(), Open: &s.open, Resumes: resumes,
	}, "watches")
}

func (t *traffic) recordEnd(s *segment, err error, wanted bool) {
	s.over = true
	r := record{Type: "end", Watch: s.id, Endpoint: s.endpoint, At: t.history.now()}
	if err != nil && !wanted {
		r.Error = failureOf(err, request{})
	}
	t.history.write(r, "watches ended")
}

func (t *traffic) recordResponse(s *segment, r *pb.WatchResponse) {
	line := record{
		Type: "watch", Watch: s.id, Endpoint: s.endpoint, At: t.history.now(), Header: headerOf(r.Header),
		Events: eventsOf(r.Events), Created: r.Created, Canceled: r.Canceled, Fragment: r.Fragment,
		Compact: r.CompactRevision, Reason: r.CancelReason,
	}
	t.history.write(line, "watch responses")
	t.advance(s, line)
	s.over = r.Canceled
}

// Advance notes how far the watch has come.
func (t *traffic) advance(s *segment, r record) {
	t.lock.Lock()
	defer t.lock.Unlock()
	s.created = s.created || r.Created
	switch {
	case len(r.Events) > 0:
		last := r.Events[len(r.Events)-1].Kv.Mod
		if !r.Fragment {
			last++ // a revision of which only a piece has come has to come again
		}
		s.next = max(s.next, last)
	case !r.Canceled && (!r.Created || s.next == 0):
		s.next = max(s.next, r.Header.Revision+1)
	}
	// What was compacted is lost to this watch; the next one begins after it.
	s.next = max(s.next, r.Compact)
	raise(&t.latest, s.next-1)
	if s.whole && !r.Canceled {
		raise(&t.covered, s.next-1)
	}
}

// Replace puts a long watch in the place of the one that it goes on from.
func (t *traffic) replace(old, fresh *segment) {
	t.lock.Lock()
	defer t.lock.Unlock()
	delete(t.live, old)
	t.live[fresh] = true
}
