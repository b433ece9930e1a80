// Package crash kills a server at random points under writes and holds it to its word: what was acknowledged is there after
// the restart, what was not is there wholly or not at all, revisions never go back, and a watch misses and repeats nothing.
// E2E_SERVER is the program, E2E_DIR the place for its data, E2E_SECONDS the time to spend, E2E_SEED repeats the choices.
package crash

import (
	"context"
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const writers = 12

type run struct {
	*testing.T
	random   *rand.Rand
	member   *member
	writers  []*writer
	watcher  *watcher
	revision int64 // the highest ever seen
	hash     *pb.HashKVResponse
	kills    int
}

func TestKill(t *testing.T) {
	seed, seconds := time.Now().UnixNano(), int64(30)
	if s := os.Getenv("E2E_SEED"); s != "" {
		seed, _ = strconv.ParseInt(s, 10, 64)
	}
	if s := os.Getenv("E2E_SECONDS"); s != "" {
		seconds, _ = strconv.ParseInt(s, 10, 64)
	}
	t.Logf("E2E_SEED=%d", seed)
	r := &run{T: t, random: rand.New(rand.NewSource(seed)), member: newMember(t), revision: 1}
	for i := 0; i < writers; i++ {
		r.writers = append(r.writers, newWriter(fmt.Sprintf("w%02d", i), seed+int64(i)))
	}
	deadline := time.Now().Add(time.Duration(seconds) * time.Second)
	for time.Now().Before(deadline) {
		r.cycle()
	}
	r.start()
	client := r.member.client()
	defer client.Close()
	r.verify(client)
	r.checkHistory()
	acked := 0
	for _, w := range r.writers {
		acked += w.acked
	}
	t.Logf("%d kills, %d acknowledged writes, %d revisions", r.kills, acked, r.revision)
	if r.kills < int(seconds)/4 || acked < r.kills {
		t.Fatalf("%d kills and %d writes in %d s prove little", r.kills, acked, seconds)
	}
}

func (r *run) start() {
	r.Helper()
	// Checkpoints and log cuts come often in some lives of the member and rarely in others.
	r.member.spawn("--snapshot-count=" + []string{"50", "1000", "10000"}[r.random.Intn(3)])
	r.member.ready()
}

// cycle is one life of the server.
func (r *run) cycle() {
	r.Helper()
	if r.random.Intn(6) == 0 { // a life that ends before it has begun
		r.member.spawn()
		time.Sleep(time.Duration(r.random.Intn(250)) * time.Millisecond)
		r.member.kill()
		r.kills++
	}
	r.start()
	client := r.member.client()
	defer client.Close()
	r.verify(client)
	if r.watcher == nil {
		r.watcher = watch(r.T, r.member.client())
	}
	if r.kills%20 == 19 {
		r.checkHistory()
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	for _, w := range r.writers {
		group.Add(1)
		go func() { defer group.Done(); w.run(ctx, client) }()
	}
	group.Add(1)
	chore, compactTo := r.random.Intn(4), r.watcher.seen()-100
	go func() { defer group.Done(); disturb(ctx, client, chore, compactTo) }()
	time.Sleep(time.Duration(r.random.Intn(500)) * time.Millisecond)
	r.member.kill()
	r.kills++
	cancel()
	group.Wait()
}

// disturb compacts or defragments, so that kills hit those too.
func disturb(ctx context.Context, client *clientv3.Client, chore int, compactTo int64) {
	switch chore {
	case 0:
		if compactTo > 1 {
			_, _ = client.Compact(ctx, compactTo)
		}
	case 1:
		if compactTo > 1 {
			_, _ = client.Compact(ctx, compactTo, clientv3.WithCompactPhysical())
		}
	case 2:
		_, _ = client.Defragment(ctx, client.Endpoints()[0])
	}
}

// verify holds the restarted server to all acknowledged writes.
func (r *run) verify(client *clientv3.Client) {
	r.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	got, err := client.Get(ctx, "crash/", clientv3.WithPrefix())
	if err != nil {
		r.Fatalf("start %d: first read: %v", r.member.starts, err)
	}
	leases, err := client.Leases(ctx)
	if err != nil {
		r.Fatalf("start %d: leases: %v", r.member.starts, err)
	}
	doubts, settled := 0, got.Header.Revision
	for _, w := range r.writers {
		if w.doubt != nil {
			doubts++
		}
		actual := state{map[string]value{}, map[clientv3.LeaseID]bool{}}
		for _, kv := range got.Kvs {
			if strings.HasPrefix(string(kv.Key), "crash/"+w.name+"/") {
				actual.keys[string(kv.Key)] = value{string(kv.Value), clientv3.LeaseID(kv.Lease), kv.ModRevision}
			}
		}
		for _, lease := range leases.Leases {
			if w.known.leases[lease.ID] || (w.doubt != nil && w.doubt.leases[lease.ID]) {
				actual.leases[lease.ID] = true
			}
		}
		if err := w.settle(actual); err != nil {
			r.Fatalf("start %d: %v", r.member.starts, err)
		}
		if w.highest > settled {
			r.Fatalf("start %d: revision %d, but %d was acknowledged", r.member.starts, settled, w.highest)
		}
		r.revision = max(r.revision, w.highest)
	}
	if settled > r.revision+int64(doubts) {
		r.Fatalf("start %d: revision %d, but only %d and %d requests in doubt are known", r.member.starts, settled, r.revision, doubts)
	}
	r.revision = settled
	r.compareHash(ctx, client)
}

// compareHash wants the same bytes at the same revision as before the kill.
func (r *run) compareHash(ctx context.Context, client *clientv3.Client) {
	r.Helper()
	maintenance := pb.NewMaintenanceClient(client.ActiveConnection())
	if r.hash != nil {
		again, err := maintenance.HashKV(ctx, &pb.HashKVRequest{Revision: r.hash.Header.Revision})
		if err != nil {
			if !strings.Contains(err.Error(), "compacted") {
				r.Fatalf("start %d: hash: %v", r.member.starts, err)
			}
		} else if again.CompactRevision == r.hash.CompactRevision && again.Hash != r.hash.Hash {
			r.Fatalf("start %d: hash of revision %d is %d, was %d", r.member.starts, r.hash.Header.Revision, again.Hash, r.hash.Hash)
		}
	}
	var err error
	if r.hash, err = maintenance.HashKV(ctx, &pb.HashKVRequest{}); err != nil {
		r.Fatalf("start %d: hash: %v", r.member.starts, err)
	}
}

// checkHistory wants every acknowledged write on the watch, at its revision, and nothing twice.
func (r *run) checkHistory() {
	r.Helper()
	events := r.watcher.upTo(r.T, r.revision)
	for _, w := range r.writers {
		for revision, want := range w.history {
			if got := events[revision]; fmt.Sprint(got) != fmt.Sprint(want) {
				r.Fatalf("revision %d of %s: watched %.200v, acknowledged %.200v", revision, w.name, got, want)
			}
		}
		w.history = map[int64]map[string]string{}
	}
}
