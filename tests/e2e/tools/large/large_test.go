// Package large holds a server with much data to what it says of its memory. E2E_PID is its process, E2E_MIB the size of the data.
package large

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"garboard.dev/tests/e2e/tools/target"
)

const (
	valueBytes = 1 << 20
	extraMiB   = 64
)

// A snapshot of a large store takes little memory beside what the store has, and says itself what it is.
func TestSnapshotInBoundedMemory(t *testing.T) {
	mib, err := strconv.Atoi(os.Getenv("E2E_MIB"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	load(t, ctx, mib)
	client := pb.NewMaintenanceClient(target.Conn(t))
	before := target.MemoryMiB(t, "VmRSS")
	resetPeak(t)
	stream, err := client.Snapshot(ctx, &pb.SnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	// The last blob is the sum of those before it.
	sum, total, last := sha256.New(), 0, []byte(nil)
	for {
		part, err := stream.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("after %d bytes: %v", total, err)
		}
		sum.Write(last)
		total += len(last)
		last = part.Blob
	}
	if !bytes.Equal(last, sum.Sum(nil)) {
		t.Fatal("the sum is not that of the file")
	}
	if total < mib<<20 {
		t.Fatalf("%d bytes for %d MiB of values", total, mib)
	}
	extra := target.MemoryMiB(t, "VmHWM") - before
	t.Logf("snapshot of %d MiB: %d MiB of memory at most beside the %d before", total>>20, extra, before)
	if extra > extraMiB {
		t.Fatalf("the snapshot took %d MiB of memory, at most %d is promised", extra, extraMiB)
	}
}

// load writes values that nothing can compress, each of its own.
func load(t *testing.T, ctx context.Context, mib int) {
	client := target.Client(t)
	keys := make(chan int)
	var writers sync.WaitGroup
	for seed := range 8 {
		writers.Add(1)
		go func() {
			defer writers.Done()
			value := make([]byte, valueBytes)
			rand.New(rand.NewSource(int64(seed))).Read(value)
			for key := range keys {
				copy(value, fmt.Sprintf("%016d", key))
				if _, err := client.Put(ctx, fmt.Sprintf("large/%06d", key), string(value)); err != nil {
					t.Errorf("put %d: %v", key, err)
				}
			}
		}()
	}
	for key := range mib {
		keys <- key
	}
	close(keys)
	writers.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

func resetPeak(t *testing.T) {
	// 5 sets the peak to what is resident now: proc_pid_clear_refs(5).
	if err := os.WriteFile("/proc/"+os.Getenv("E2E_PID")+"/clear_refs", []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
}
