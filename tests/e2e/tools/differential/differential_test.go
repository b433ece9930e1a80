// Package differential sends the same requests to fresh servers, ours and a real etcd, and wants the same answers, the same
// history and the same hash. The environment names the programs (E2E_SERVER, E2E_REFERENCE) and a folder for their data (E2E_DIR).
// E2E_SEED repeats a run.
package differential

import (
	"os"
	"strconv"
	"testing"
	"time"
)

func seed(t *testing.T) int64 {
	t.Helper()
	if s := os.Getenv("E2E_SEED"); s != "" {
		seed, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return seed
	}
	return time.Now().UnixNano()
}

func TestSameAsReference(t *testing.T) {
	seed, steps := seed(t), 6000
	if s := os.Getenv("E2E_STEPS"); s != "" {
		steps, _ = strconv.Atoi(s)
	}
	t.Logf("E2E_SEED=%d", seed)
	requests := sequence(seed, steps)
	played, found := run(t, startPair(t, nil), requests)
	if found == nil {
		t.Logf("%d revisions, %d events compared", played.at.head, played.events)
		return
	}
	t.Error(found)
	report(t, seed, requests)
}
