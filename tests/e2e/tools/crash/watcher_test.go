package crash

import (
	"context"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// watcher is one clientv3 watch that outlives every kill: the client resumes it.
type watcher struct {
	lock   sync.Mutex
	last   int64
	events map[int64]map[string]string
	fault  string
}

func watch(t testing.TB, client *clientv3.Client) *watcher {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); _ = client.Close() })
	w := &watcher{last: 1, events: map[int64]map[string]string{}}
	channel := client.Watch(ctx, "crash/", clientv3.WithPrefix(), clientv3.WithRev(2))
	go func() {
		for r := range channel {
			w.take(r)
		}
	}()
	return w
}

func (w *watcher) take(r clientv3.WatchResponse) {
	w.lock.Lock()
	defer w.lock.Unlock()
	if err := r.Err(); err != nil {
		w.fault = err.Error()
		return
	}
	begin := w.last
	for _, event := range r.Events {
		revision := event.Kv.ModRevision
		if revision <= begin {
			w.fault = "a revision came again, or was split"
		}
		if w.events[revision] == nil {
			w.events[revision] = map[string]string{}
		}
		text := string(event.Kv.Value)
		if _, twice := w.events[revision][string(event.Kv.Key)]; twice {
			w.fault = "an event came twice"
		}
		w.events[revision][string(event.Kv.Key)] = text
		if revision > w.last+1 {
			w.fault = "a revision was left out"
		}
		w.last = revision
	}
}

func (w *watcher) seen() int64 {
	w.lock.Lock()
	defer w.lock.Unlock()
	return w.last
}

// upTo waits for a revision and hands over what was watched since the last call.
func (w *watcher) upTo(t testing.TB, revision int64) map[int64]map[string]string {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		w.lock.Lock()
		fault, last, events := w.fault, w.last, w.events
		if fault != "" || last >= revision {
			w.events = map[int64]map[string]string{}
			w.lock.Unlock()
			if fault != "" {
				t.Fatalf("watch: %s near revision %d", fault, last)
			}
			return events
		}
		w.lock.Unlock()
		if time.Now().After(deadline) {
			t.Fatalf("the watch is at revision %d after 60 s, the store at %d", last, revision)
		}
	}
}

func grant(ctx context.Context, client *clientv3.Client, id clientv3.LeaseID) (int64, error) {
	// clientv3's own Grant lets the server choose the id, and then a grant in doubt could not be found again.
	_, err := pb.NewLeaseClient(client.ActiveConnection()).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: int64(id), TTL: 36000})
	return 0, err
}
