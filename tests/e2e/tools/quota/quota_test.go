// Package quota fills a server that was started with --quota-backend-bytes=16777216 and works it free again.
package quota

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"garboard.dev/tests/e2e/tools/target"
)

const quotaBytes = 16 << 20

func TestQuota(t *testing.T) {
	ctx, client := target.Context(t), target.Client(t)
	kv, maintenance := pb.NewKVClient(client.ActiveConnection()), pb.NewMaintenanceClient(client.ActiveConnection())
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	state := func() *pb.StatusResponse {
		r, err := maintenance.Status(ctx, &pb.StatusRequest{})
		ok(err)
		return r
	}
	if got := state().DbSizeQuota; got != quotaBytes {
		t.Fatalf("quota %d", got)
	}
	value := []byte(strings.Repeat("q", 100_000))
	put := func(key string) error {
		_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte(key), Value: value})
		return err
	}
	written, err := 0, error(nil)
	for ; err == nil && written < 1000; written++ {
		err = put(fmt.Sprintf("quota/%03d", written%50)) // overwritten: compaction can free it
	}
	const text = "etcdserver: mvcc: database space exceeded"
	target.WantStatus(t, err, codes.ResourceExhausted, text)
	if written < 100 || written > 200 {
		t.Fatalf("%d puts of 100 kB fit into 16 MiB", written)
	}
	alarms := func() []*pb.AlarmMember {
		r, err := maintenance.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_GET})
		ok(err)
		return r.Alarms
	}
	raised := alarms()
	if len(raised) != 1 || raised[0].Alarm != pb.AlarmType_NOSPACE || raised[0].MemberID != state().Header.MemberId {
		t.Fatalf("alarms %v", raised)
	}
	_, err = kv.Put(ctx, &pb.PutRequest{Key: []byte("tiny")})
	target.WantStatus(t, err, codes.ResourceExhausted, text)
	_, err = pb.NewLeaseClient(client.ActiveConnection()).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 60})
	target.WantStatus(t, err, codes.ResourceExhausted, text)

	// The documented way out: compact, defragment, disarm.
	_, err = kv.Compact(ctx, &pb.CompactionRequest{Revision: state().Header.Revision, Physical: true})
	ok(err)
	_, err = kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("quota/"), RangeEnd: []byte("quota/030")})
	ok(err)
	_, err = kv.Compact(ctx, &pb.CompactionRequest{Revision: state().Header.Revision, Physical: true})
	ok(err)
	_, err = maintenance.Defragment(ctx, &pb.DefragmentRequest{})
	ok(err)
	if after := state(); after.DbSize > quotaBytes/2 {
		t.Fatalf("%d bytes after compaction and defragmentation", after.DbSize)
	}
	if len(alarms()) != 1 {
		t.Fatal("the alarm clears itself")
	}
	target.WantStatus(t, put("quota/000"), codes.ResourceExhausted, text)
	_, err = maintenance.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE, MemberID: raised[0].MemberID})
	ok(err)
	ok(put("quota/000"))
	r, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("quota/"), RangeEnd: []byte("quota0"), CountOnly: true})
	ok(err)
	if r.Count != 21 {
		t.Fatalf("%d keys, want 21", r.Count)
	}
}

// A deletion or an overwrite that is refused must not be half done.
func TestRefusedWriteLeavesNoTrace(t *testing.T) {
	ctx, client := target.Context(t), target.Client(t)
	kv := pb.NewKVClient(client.ActiveConnection())
	value := []byte(strings.Repeat("q", 1_000_000))
	var last int64
	for i := 0; ; i++ {
		r, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("big"), Value: append(value, fmt.Sprint(i)...)})
		if err != nil {
			if status.Code(err) != codes.ResourceExhausted {
				t.Fatal(err)
			}
			break
		}
		last = r.Header.Revision
	}
	r, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("big")})
	if err != nil || r.Kvs[0].ModRevision != last || r.Header.Revision != last {
		t.Fatalf("after the refusal: %v, last revision %d, %v", r.Header, last, err)
	}
}
