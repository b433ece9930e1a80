package differential

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// patience is how long a stream may take to catch up.
const patience = 20 * time.Second

// watchers is a step that ends the stream of watchers in its slot, if there is one, and opens another.
type watchers struct {
	slot    int
	Creates []*pb.WatchCreateRequest
}

func (w *watchers) String() string { return fmt.Sprintf("watch on stream %d: %v", w.slot, w.Creates) }

// Each stream has a watcher of its own at the end, with this id and on this key: a stream without any never answers for its
// progress, and the answer to its creation says that all requests before have had theirs.
const (
	sentinel = 999
	beacon   = "~"
	broken   = -2 // is told why the stream has failed
)

func create(r *pb.WatchCreateRequest) *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}
}

func progress() *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
}

// stream is one Watch call. It keeps what each watcher was told, message boundaries left out: they are free.
type stream struct {
	pb.Watch_WatchClient
	cancel context.CancelFunc
	news   chan struct{}

	lock   sync.Mutex
	told   map[int64][]string
	caught int64 // all watchers have been told everything up to this revision
	lost   bool  // a watcher was cancelled by compaction; etcd never says that all have caught up then
	err    error
}

// open sends the requests and returns once all of them have their answers.
func (s *side) open(ctx context.Context, requests []*pb.WatchRequest) *stream {
	ctx, cancel := context.WithCancel(ctx)
	w := &stream{cancel: cancel, news: make(chan struct{}, 1), told: map[int64][]string{}}
	if w.Watch_WatchClient, w.err = s.watch.Watch(ctx); w.err != nil {
		return w
	}
	go w.read()
	for _, request := range append(requests, create(&pb.WatchCreateRequest{Key: []byte(beacon), WatchId: sentinel})) {
		if err := w.Send(request); err != nil {
			break // the reader says why
		}
	}
	w.wait(func() bool { return len(w.told[sentinel]) > 0 }, func() {})
	return w
}

func (w *stream) read() {
	for {
		r, err := w.Recv()
		w.lock.Lock()
		if err != nil {
			w.err = err
		} else {
			w.note(r)
		}
		w.lock.Unlock()
		select {
		case w.news <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

func (w *stream) note(r *pb.WatchResponse) {
	if r.WatchId == -1 && !r.Created && !r.Canceled {
		w.caught = max(w.caught, r.Header.Revision)
		return
	}
	w.lost = w.lost || r.CompactRevision != 0
	if r.Created || r.Canceled || r.CompactRevision != 0 {
		w.told[r.WatchId] = append(w.told[r.WatchId], fmt.Sprintf("created %v canceled %v compacted %d at %d %q",
			r.Created, r.Canceled, r.CompactRevision, r.Header.Revision, r.CancelReason))
	}
	for _, event := range r.Events {
		w.told[r.WatchId] = append(w.told[r.WatchId], event.String())
	}
}

// wait ends when done holds, or with an error in w. Meanwhile it asks again and again.
func (w *stream) wait(done func() bool, ask func()) {
	late := time.NewTimer(patience)
	defer late.Stop()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		w.lock.Lock()
		over := done() || w.err != nil
		w.lock.Unlock()
		if over {
			return
		}
		select {
		case <-w.news:
		case <-again.C:
			ask()
		case <-late.C:
			w.lock.Lock()
			w.err = errors.New("the stream does not catch up")
			w.lock.Unlock()
		}
	}
}

// catchUp waits until all watchers have been told everything up to the revision, which is one of the beacon if some are lost.
// A watcher that lags behind leaves the question for progress without an answer, so that it is repeated.
func (w *stream) catchUp(revision int64) {
	ask := func() { _ = w.Send(progress()) } // the reader says why it failed
	if w.Watch_WatchClient != nil {
		ask()
	}
	w.wait(func() bool { return w.caught >= revision || w.lost && len(w.told[sentinel]) > 1 }, ask)
}

// end closes the stream and gives what its watchers were told.
func (w *stream) end() map[int64][]string {
	w.lock.Lock()
	defer w.lock.Unlock()
	defer w.cancel()
	if w.err != nil {
		w.told[broken] = []string{w.err.Error()}
	}
	return w.told
}
