package clientv3

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// The server runs with --watch-progress-notify-interval=500ms.
func TestWatchProgressNotify(t *testing.T) {
	e := setup(t)
	e.put("k", "0")
	s := e.openStream()
	request := e.all()
	request.ProgressNotify = true
	id := s.watch(request).WatchId
	first := s.recv()
	e.check("idle watcher is told", []any{first.WatchId, len(first.Events), first.Canceled, first.Created, first.Header.Revision}, []any{id, 0, false, false, e.revision()})

	quiet := e.openStream()
	quiet.watch(e.all())
	quiet.silent("unasked", 1500*time.Millisecond)
}

func TestWatchProgressNotifyWaitsForFutureStart(t *testing.T) {
	e := setup(t)
	s := e.openStream()
	request := e.all()
	request.ProgressNotify, request.StartRevision = true, e.revision()+2
	s.watch(request)
	s.silent("suppressed before the start", 1500*time.Millisecond)
	e.put("k", "1")
	e.put("k", "2")
	e.check("event", string(s.events(1)[0].Kv.Value), "2")
	e.check("then progress", len(s.recv().Events), 0)
}

func TestWatchManualProgress(t *testing.T) {
	e := setup(t)
	s := e.openStream()
	s.requestProgress()
	r := s.within(500 * time.Millisecond)
	if r != nil { // a stream without watchers: etcd answers too
		e.check("no watchers", []any{r.WatchId, len(r.Events)}, []any{-1, 0})
	}
	s.watch(e.all())
	other := e.all()
	other.Key = e.key("other")
	s.watch(other)
	rev := e.put("k", "1")
	e.check("event", len(s.events(1)), 1)
	s.requestProgress()
	r = s.recv()
	e.check("one answer for the stream", []any{r.WatchId, len(r.Events), r.Header.Revision}, []any{-1, 0, rev})
	s.silent("only one", 300*time.Millisecond)

	future := e.all()
	future.StartRevision = rev + 100
	s.watch(future)
	s.requestProgress()
	s.silent("not while a watcher has not started", 500*time.Millisecond)
}

// Progress never overtakes events: after it, no event with a revision up to its own may come.
func TestWatchProgressIsOrderedWithEvents(t *testing.T) {
	e := setup(t)
	s := e.openStream()
	s.watch(e.all())
	const total = 1500
	stop := make(chan struct{})
	var asking, writing sync.WaitGroup
	asking.Add(1)
	go func() {
		defer asking.Done()
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				if s.raw.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}) != nil {
					return
				}
			}
		}
	}()
	for writer := 0; writer < 4; writer++ {
		writing.Add(1)
		go func() {
			defer writing.Done()
			for i := 0; i < total/4; i++ {
				if _, err := e.kv.Put(e.ctx, &pb.PutRequest{Key: e.key(fmt.Sprintf("k%d", writer))}); err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	promised, answers, seen := int64(0), 0, 0
	last := int64(0)
	for seen < total {
		r := s.recv()
		if len(r.Events) == 0 {
			answers++
			promised = max(promised, r.Header.Revision)
			continue
		}
		for _, event := range r.Events {
			seen++
			if event.Kv.ModRevision <= promised || event.Kv.ModRevision <= last {
				t.Fatalf("event at %d after progress %d and event %d", event.Kv.ModRevision, promised, last)
			}
			last = event.Kv.ModRevision
		}
	}
	close(stop)
	asking.Wait()
	writing.Wait()
	if answers == 0 {
		s.requestProgress()
		e.check("at least at rest", len(s.recv().Events), 0)
	}
}

// A client that does not read costs nobody else anything, and finds every event when it does.
func TestWatchSlowWatcher(t *testing.T) {
	e := setup(t)
	slow, quick := e.openStream(), e.openStream()
	slow.watch(e.all())
	quick.watch(e.all())
	const total = 3000
	value := strings.Repeat("s", 8<<10)
	base := e.revision()
	worst := time.Duration(0)
	for i := 1; i <= total; i++ {
		start := time.Now()
		e.put(fmt.Sprintf("k%d", i%10), value)
		worst = max(worst, time.Since(start))
	}
	if worst > 5*time.Second {
		t.Fatalf("a put took %s behind a slow watcher", worst)
	}
	e.check("current", e.revision(), base+total)
	for name, s := range map[string]*stream{"quick": quick, "slow": slow} {
		for i, event := range s.events(total) {
			e.check(name, event.Kv.ModRevision, base+1+int64(i))
		}
	}
	e.put("after", "x")
	e.check("slow is live again", len(slow.events(1)), 1)
}

// Whoever falls behind a compaction is told so: never a silent gap.
func TestWatchSlowWatcherMeetsCompaction(t *testing.T) {
	e := setup(t)
	s := e.openStream()
	s.watch(e.all())
	const total = 3000
	value := strings.Repeat("s", 8<<10)
	base := e.revision()
	for i := 1; i <= total; i++ {
		e.put("k", value)
	}
	e.compact(base + total)
	next := base + 1
	for next <= base+total {
		r := s.recv()
		if r.Canceled {
			e.check("reason", r.CompactRevision, base+total)
			return
		}
		for _, event := range r.Events {
			e.check("no gap", event.Kv.ModRevision, next)
			next++
		}
	}
}

// Watchers that start anywhere in the past while writes go on see each revision once.
func TestWatchCatchUpMeetsLive(t *testing.T) {
	e := setup(t)
	base := e.revision()
	const total = 1200
	done := make(chan error, 1)
	go func() {
		for i := 0; i < total; i++ {
			if _, err := e.kv.Put(e.ctx, &pb.PutRequest{Key: e.key(fmt.Sprintf("k%d", i%7)), Value: []byte(fmt.Sprint(i))}); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	var readers sync.WaitGroup
	for w := 0; w < 12; w++ {
		for e.revision() < base+int64(w*80)+1 {
			time.Sleep(time.Millisecond)
		}
		s := e.openStream()
		request := e.all()
		request.StartRevision = base + 1 + int64(w*40)
		s.watch(request)
		readers.Add(1)
		go func() {
			defer readers.Done()
			for next := request.StartRevision; next <= base+total; {
				r := s.within(20 * time.Second)
				if r == nil {
					t.Errorf("watcher %d: nothing for 20 s at %d", w, next)
					return
				}
				for _, event := range r.Events {
					if event.Kv.ModRevision != next {
						t.Errorf("watcher %d: revision %d, want %d", w, event.Kv.ModRevision, next)
						return
					}
					next++
				}
			}
		}()
	}
	e.ok(<-done)
	readers.Wait()
}
