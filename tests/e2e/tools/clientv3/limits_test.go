package clientv3

import (
	"context"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"garboard.dev/tests/e2e/tools/target"
)

func TestRequestSize(t *testing.T) {
	e := setup(t)
	put := func(size int) error {
		_, err := e.kv.Put(e.ctx, &pb.PutRequest{Key: e.key("k"), Value: make([]byte, size)})
		return err
	}
	e.ok(put(1536*1024 - 512))
	target.WantStatus(t, put(1536*1024), codes.InvalidArgument, "etcdserver: request is too large")
	target.WantStatus(t, put(2000*1024), codes.InvalidArgument, "etcdserver: request is too large")
	err := put(3 << 20)
	if got := status.Convert(err); got.Code() != codes.ResourceExhausted ||
		!regexp.MustCompile(`^grpc: received message larger than max \(\d+ vs\. 2097152\)$`).MatchString(got.Message()) {
		t.Fatalf("3 MiB: %v", err)
	}
	e.put("k", "still serving")
}

func TestLargeAnswer(t *testing.T) {
	e := setup(t)
	value := strings.Repeat("l", 1<<20)
	for i := 0; i < 12; i++ {
		e.put(string(rune('a'+i)), value)
	}
	r, err := e.kv.Range(e.ctx, &pb.RangeRequest{Key: e.key(""), RangeEnd: e.end()}, grpc.MaxCallRecvMsgSize(64<<20))
	e.ok(err)
	e.check("12 MiB in one answer", len(r.Kvs), 12)
}

func TestUnknownMethod(t *testing.T) {
	e := setup(t)
	err := e.client.ActiveConnection().Invoke(e.ctx, "/etcdserverpb.KV/Nonsense", &pb.RangeRequest{}, &pb.RangeResponse{})
	target.WantStatus(t, err, codes.Unimplemented, "unknown method Nonsense for service etcdserverpb.KV")
	err = e.client.ActiveConnection().Invoke(e.ctx, "/no.such/Thing", &pb.RangeRequest{}, &pb.RangeResponse{})
	target.WantStatus(t, err, codes.Unimplemented, "unknown service no.such")
}

func TestDeadlineOfTheClient(t *testing.T) {
	e := setup(t)
	ctx, cancel := context.WithTimeout(e.ctx, time.Nanosecond)
	defer cancel()
	_, err := e.kv.Put(ctx, &pb.PutRequest{Key: e.key("k")})
	e.check("code", status.Code(err), codes.DeadlineExceeded)
}

// Many clients at once on one key each: every acknowledged write is one revision.
func TestConcurrentWriters(t *testing.T) {
	e := setup(t)
	before := e.revision()
	const writers, each = 50, 40
	var group sync.WaitGroup
	for w := 0; w < writers; w++ {
		group.Add(1)
		go func() {
			defer group.Done()
			last := int64(0)
			for i := 0; i < each; i++ {
				r, err := e.kv.Put(e.ctx, &pb.PutRequest{Key: e.key(string(rune('A' + w)))})
				if err != nil {
					t.Error(err)
					return
				}
				if r.Header.Revision <= last {
					t.Errorf("revision %d after %d", r.Header.Revision, last)
				}
				last = r.Header.Revision
			}
		}()
	}
	group.Wait()
	e.check("revisions", e.revision(), before+writers*each)
	for _, kv := range e.list(nil).Kvs {
		e.check("version", kv.Version, each)
	}
}

// Increments by compare-and-put from several clients never lose one.
func TestConcurrentCompareAndPut(t *testing.T) {
	e := setup(t)
	const clients, each = 8, 25
	var group sync.WaitGroup
	for c := 0; c < clients; c++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for done := 0; done < each; {
				r, err := e.kv.Range(e.ctx, &pb.RangeRequest{Key: e.key("n")})
				if err != nil {
					t.Error(err)
					return
				}
				rev, count := int64(0), ""
				if len(r.Kvs) > 0 {
					rev, count = r.Kvs[0].ModRevision, string(r.Kvs[0].Value)
				}
				x, err := e.kv.Txn(e.ctx, &pb.TxnRequest{
					Compare: []*pb.Compare{cmpMod(e.key("n"), equal, rev)},
					Success: []*pb.RequestOp{opPut(e.key("n"), count+"|")},
				})
				if err != nil {
					t.Error(err)
					return
				}
				if x.Succeeded {
					done++
				}
			}
		}()
	}
	group.Wait()
	e.check("no increment lost", len(e.get("n").Value), clients*each)
}
