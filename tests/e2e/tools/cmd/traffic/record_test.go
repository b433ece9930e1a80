package main

import (
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
)

func TestLargeValuesAreRecordedWithoutTheirPadding(t *testing.T) {
	value := padded("3.14", 5000)
	short := recorded([]byte(value))
	if short != "3.14#5000#" || string(unrecorded(short)) != value {
		t.Fatalf("%q", short)
	}
	for _, other := range []string{"3.14", "", "3.14#5#xxxx", "3.14#3#xyx"} {
		if recorded([]byte(other)) != other {
			t.Errorf("%q is recorded as %q", other, recorded([]byte(other)))
		}
	}
}

// One that was added and has not been started yet. The judge reads no null.
func TestAMemberWithoutClientURLsIsRecordedWithoutThem(t *testing.T) {
	line, err := json.Marshal(member{ID: 7})
	if err != nil || string(line) != `{"id":7,"name":""}` {
		t.Fatalf("%s, %v", line, err)
	}
}

// A transaction that writes a key twice would be refused, and nothing learned.
func TestTransactionsWriteEachKeyOnce(t *testing.T) {
	c := &client{traffic: &traffic{options: options{prefix: "t/", keys: 5}}, random: rand.New(rand.NewPCG(1, 2)), seen: map[string]keyValue{}}
	var written func(ops []request, seen map[string]int)
	written = func(ops []request, seen map[string]int) {
		for _, op := range ops {
			switch {
			case op.Put != nil:
				seen[op.Put.Key]++
			case op.Delete != nil:
				seen[op.Delete.Key]++
			case op.Txn != nil:
				written(op.Txn.Then, seen)
				written(op.Txn.Else, seen)
			}
		}
	}
	nested := 0
	for range 2000 {
		r := c.randomTxn(c.shuffled(), 0)
		seen := map[string]int{}
		written([]request{{Txn: r}}, seen)
		for key, times := range seen {
			if times > 1 {
				t.Fatalf("%s is written %d times in %+v", key, times, r)
			}
		}
		for _, op := range append(r.Then, r.Else...) {
			if op.Txn != nil {
				nested++
			}
		}
	}
	if nested == 0 {
		t.Error("no transaction has another inside")
	}
}

func TestOnlySureRefusalsAreDefinite(t *testing.T) {
	grant := request{Grant: &leaseRequest{}}
	put := request{Put: &putRequest{}}
	for _, c := range []struct {
		request request
		err     error
		sure    bool
	}{
		{put, grpcstatus.Error(codes.NotFound, "etcdserver: requested lease not found"), true},
		{put, grpcstatus.Error(codes.ResourceExhausted, "etcdserver: too many requests"), true},
		{put, grpcstatus.Error(codes.ResourceExhausted, "grpc: received message larger than max"), false},
		{put, grpcstatus.Error(codes.Unavailable, "etcdserver: request timed out"), false},
		{put, grpcstatus.Error(codes.Unavailable, "error reading from server: EOF"), false},
		{put, grpcstatus.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: refused"`), true},
		{put, grpcstatus.Error(codes.DeadlineExceeded, "context deadline exceeded"), false},
		{grant, grpcstatus.Error(codes.FailedPrecondition, "etcdserver: lease already exists"), false},
	} {
		if got := failureOf(c.err, c.request).Definite; got != c.sure {
			t.Errorf("%v: definite %v", c.err, got)
		}
	}
}

func TestHistoryTimesRise(t *testing.T) {
	h := history{start: time.Now()}
	if a, b := h.now(), h.now(); a > b || a < 0 {
		t.Error(a, b)
	}
}
