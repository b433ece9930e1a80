package clientv3

import (
	"context"
	"time"

	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// stream is a bare Watch stream. Its reader runs only while somebody waits, so that a test can be a slow client.
type stream struct {
	*env
	raw    pb.Watch_WatchClient
	cancel context.CancelFunc
	next   chan received
	asked  chan struct{}
}

type received struct {
	response *pb.WatchResponse
	err      error
}

func (e *env) openStream() *stream {
	e.Helper()
	ctx, cancel := context.WithCancel(e.ctx)
	e.Cleanup(cancel)
	raw, err := pb.NewWatchClient(e.client.ActiveConnection()).Watch(ctx, grpc.MaxCallRecvMsgSize(256<<20))
	e.ok(err)
	s := &stream{env: e, raw: raw, cancel: cancel, next: make(chan received, 1), asked: make(chan struct{}, 1)}
	go func() {
		for range s.asked {
			r, err := raw.Recv()
			s.next <- received{r, err}
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *stream) create(request *pb.WatchCreateRequest) {
	s.Helper()
	s.ok(s.raw.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: request}}))
}

// watch creates a watcher and returns its "created" answer.
func (s *stream) watch(request *pb.WatchCreateRequest) *pb.WatchResponse {
	s.Helper()
	s.create(request)
	r := s.recv()
	s.check("created", []any{r.Created, len(r.Events)}, []any{true, 0})
	return r
}

func (s *stream) cancelWatch(id int64) {
	s.Helper()
	s.ok(s.raw.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}))
}

func (s *stream) requestProgress() {
	s.Helper()
	s.ok(s.raw.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}))
}

// within waits for the next message; nil when none comes in time. A wait that ran out is taken up by the next one.
func (s *stream) within(wait time.Duration) *pb.WatchResponse {
	s.Helper()
	select {
	case s.asked <- struct{}{}:
	default:
	}
	select {
	case r := <-s.next:
		s.ok(r.err)
		return r.response
	case <-time.After(wait):
		return nil
	}
}

func (s *stream) recv() *pb.WatchResponse {
	s.Helper()
	r := s.within(20 * time.Second)
	if r == nil {
		s.Fatal("no watch response within 20 s")
	}
	return r
}

// silent fails when anything arrives within the wait.
func (s *stream) silent(what string, wait time.Duration) {
	s.Helper()
	if r := s.within(wait); r != nil {
		s.Fatalf("%s: unexpected %v", what, r)
	}
}

// events gathers n events, whatever the batches.
func (s *stream) events(n int) []*mvccpb.Event {
	s.Helper()
	var out []*mvccpb.Event
	for len(out) < n {
		r := s.recv()
		if r.Canceled || len(r.Events) == 0 {
			s.Fatalf("after %d events: %v", len(out), r)
		}
		out = append(out, r.Events...)
	}
	if len(out) > n {
		s.Fatalf("%d events, want %d", len(out), n)
	}
	return out
}
