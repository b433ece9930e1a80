// Package limits goes through what a server must bound: each test asks for more than is allowed, wants the documented refusal, and holds the
// process (E2E_PID) to the memory it may take. The server has --max-concurrent-streams=200.
package limits

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"garboard.dev/tests/e2e/tools/target"
)

const streamsMax = 200

// memoryMiB is what the server has resident.
func memoryMiB(t *testing.T) int {
	t.Helper()
	return target.MemoryMiB(t, "VmRSS")
}

// within fails if the server has taken more than so much memory since before.
func within(t *testing.T, before, extraMiB int) {
	t.Helper()
	extra := memoryMiB(t) - before
	t.Logf("%d MiB of memory beside the %d before", extra, before)
	if extra > extraMiB {
		t.Fatalf("%d MiB of memory, at most %d may be", extra, extraMiB)
	}
}

// serves wants the server to be up.
func serves(t *testing.T) {
	t.Helper()
	client := target.Client(t)
	ctx := target.Context(t)
	if _, err := client.Put(ctx, "limits/serves", "yes"); err != nil {
		t.Fatal(err)
	}
	if got, err := client.Get(ctx, "limits/serves"); err != nil || got.Count != 1 {
		t.Fatal(got, err)
	}
}

// raw sends bytes as they are.
type raw []byte

type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) ([]byte, error) { return v.(raw), nil }

func (rawCodec) Unmarshal([]byte, any) error { return nil }

// deep is a transaction nested so often.
func deep(levels int) raw {
	var op []byte
	for range levels {
		txn := protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), op)
		op = protowire.AppendBytes(protowire.AppendTag(nil, 4, protowire.BytesType), txn)
		if len(op) > 1<<20 {
			break
		}
	}
	return protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), op)
}

func TestDeepNesting(t *testing.T) {
	conn, ctx := target.Conn(t), target.Context(t)
	for _, levels := range []int{33, 60, 127, 1000, 5000} {
		err := conn.Invoke(ctx, "/etcdserverpb.KV/Txn", deep(levels), &pb.TxnResponse{}, grpc.ForceCodec(rawCodec{}))
		switch code := status.Code(err); code {
		case codes.InvalidArgument, codes.Internal:
		default:
			t.Fatalf("%d levels: %s %v", levels, code, err)
		}
	}
	serves(t)
}

// Streams above the limit wait at the client until one of the others ends.
func TestConcurrentStreams(t *testing.T) {
	conn := target.Conn(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	watch := func(ctx context.Context) error {
		stream, err := pb.NewWatchClient(conn).Watch(ctx)
		if err != nil {
			return err
		}
		create := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("limits/streams")}}}
		if err := stream.Send(create); err != nil {
			return err
		}
		_, err = stream.Recv()
		return err
	}
	var cancels []context.CancelFunc
	for n := range streamsMax {
		one, cancel := context.WithCancel(ctx)
		defer cancel()
		cancels = append(cancels, cancel)
		if err := watch(one); err != nil {
			t.Fatalf("stream %d: %v", n, err)
		}
	}
	short, cancelShort := context.WithTimeout(ctx, time.Second)
	defer cancelShort()
	if err := watch(short); status.Code(err) != codes.DeadlineExceeded {
		t.Fatalf("one stream more: %v", err)
	}
	opened := make(chan error, 1)
	go func() { opened <- watch(ctx) }()
	cancels[0]()
	if err := <-opened; err != nil {
		t.Fatalf("after one has ended: %v", err)
	}
	serves(t)
}

// More watchers than a stream may have are refused, and the stream goes on.
func TestWatchersOfAStream(t *testing.T) {
	const watchersMax = 10_000
	before := memoryMiB(t)
	ctx := target.Context(t)
	stream, err := pb.NewWatchClient(target.Conn(t)).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for n := range watchersMax + 10 {
			key := []byte(fmt.Sprintf("limits/watchers/%06d", n))
			_ = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: key}}})
		}
	}()
	created, refused := 0, ""
	for range watchersMax + 10 {
		answer, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if answer.Canceled {
			refused = answer.CancelReason
		} else {
			created++
		}
	}
	if created != watchersMax || !strings.Contains(refused, "too many watch") {
		t.Fatalf("%d watchers, the others refused with %q", created, refused)
	}
	if _, err := target.Client(t).Put(ctx, "limits/watchers/000007", "v"); err != nil {
		t.Fatal(err)
	}
	if answer, err := stream.Recv(); err != nil || len(answer.Events) != 1 {
		t.Fatal(answer, err)
	}
	within(t, before, 64)
}

// stingy is a connection of its own that gives little room for what is not read.
func stingy(t *testing.T) *grpc.ClientConn {
	conn, err := grpc.NewClient(strings.TrimPrefix(target.Endpoint(t), "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(128<<20)))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// Clients that watch and do not read cost a bounded queue each, and lose nothing.
func TestSlowWatchers(t *testing.T) {
	const streams, puts, valueBytes = 20, 300, 256 << 10
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	client := target.Client(t)
	var slow []pb.Watch_WatchClient
	for range streams {
		conn := stingy(t)
		defer conn.Close()
		stream, err := pb.NewWatchClient(conn).Watch(ctx)
		if err != nil {
			t.Fatal(err)
		}
		create := &pb.WatchCreateRequest{Key: []byte("limits/slow"), StartRevision: 0}
		if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		slow = append(slow, stream)
	}
	// The caches are full before it is measured.
	value := strings.Repeat("v", valueBytes)
	for range 400 {
		if _, err := client.Put(ctx, "limits/filler", value); err != nil {
			t.Fatal(err)
		}
	}
	before := memoryMiB(t)
	for range puts {
		if _, err := client.Put(ctx, "limits/slow", value); err != nil {
			t.Fatal(err)
		}
	}
	// 20 streams, each with 75 MiB of events unread: 1500 MiB if they were all kept.
	within(t, before, 20*(4+2)+64)
	for _, stream := range slow {
		for seen := 0; seen < puts; {
			answer, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			seen += len(answer.Events)
		}
	}
}

// Large answers to clients that do not read wait for room: the server does not hold more of them than it says.
func TestSlowReaders(t *testing.T) {
	const keys, valueBytes, readers, capMiB = 64, 1 << 20, 40, 512
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	client := target.Client(t)
	value := strings.Repeat("v", valueBytes)
	for n := range keys {
		if _, err := client.Put(ctx, fmt.Sprintf("limits/list/%03d", n), value); err != nil {
			t.Fatal(err)
		}
	}
	before := memoryMiB(t)
	waiting, release := context.WithCancel(ctx)
	defer release()
	begun := make(chan struct{}, readers)
	var ended sync.WaitGroup
	for range readers {
		ended.Add(1)
		go func() {
			defer ended.Done()
			conn := stingy(t)
			defer conn.Close()
			// It is asked and never received from: flow control holds the answer at the server.
			stream, err := conn.NewStream(waiting, &grpc.StreamDesc{ServerStreams: true}, "/etcdserverpb.KV/Range")
			if err == nil {
				err = stream.SendMsg(&pb.RangeRequest{Key: []byte("limits/list/"), RangeEnd: []byte("limits/list0"), Serializable: true})
			}
			if err != nil {
				t.Error(err)
				return
			}
			if headers, err := stream.Header(); err == nil && len(headers) > 0 {
				begun <- struct{}{}
			}
			<-waiting.Done()
		}()
	}
	for range capMiB / (2 * keys) {
		<-begun
	}
	for range 20 {
		serves(t)
	}
	// While rows are read each is in memory twice, and what was freed just now is not given back yet.
	within(t, before, 2*capMiB+256)
	for deadline := time.Now().Add(30 * time.Second); memoryMiB(t)-before > capMiB+128; {
		if time.Now().After(deadline) {
			t.Fatalf("%d MiB beside the %d before do not fall to %d", memoryMiB(t)-before, before, capMiB+128)
		}
		serves(t)
	}
	if more := len(begun) + capMiB/(2*keys); more > capMiB/keys {
		t.Fatalf("%d answers of %d MiB have begun where %d MiB may be under way", more, keys, capMiB)
	}
	release()
	ended.Wait()
	serves(t)
}
