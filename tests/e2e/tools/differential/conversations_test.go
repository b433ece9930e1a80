package differential

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// conversation is one stream in which everything that a server says is told apart, message by message, with requests between.
type conversation struct {
	*side
	ctx    context.Context
	watch  pb.Watch_WatchClient
	lease  pb.Lease_LeaseKeepAliveClient
	heard  []string
	head   int64
	failed error
}

// ask sends a request beside the stream.
func (c *conversation) ask(requests ...fmt.Stringer) {
	for _, request := range requests {
		answer := c.side.ask(c.ctx, request)
		c.heard = append(c.heard, answer.text)
		c.head = max(c.head, answer.revision)
	}
}

func (c *conversation) send(requests ...*pb.WatchRequest) {
	for _, request := range requests {
		if c.failed == nil {
			c.failed = c.watch.Send(request)
		}
	}
}

// hear notes the next messages of the watch stream.
func (c *conversation) hear(n int) {
	for ; n > 0 && c.failed == nil; n-- {
		r, err := c.watch.Recv()
		c.note(r, err)
	}
}

func (c *conversation) note(r message, err error) {
	if err != nil {
		c.failed = err
		c.heard = append(c.heard, failure(err))
		return
	}
	r.GetHeader().RaftTerm = 0
	c.heard = append(c.heard, r.String())
}

// renew keeps leases alive, one after the other.
func (c *conversation) renew(ids ...int64) {
	for _, id := range ids {
		if c.failed == nil {
			c.failed = c.lease.Send(&pb.LeaseKeepAliveRequest{ID: id})
		}
		if c.failed == nil {
			r, err := c.lease.Recv()
			c.note(r, err)
		}
	}
}

func on(key string, change ...func(*pb.WatchCreateRequest)) *pb.WatchRequest {
	r := &pb.WatchCreateRequest{Key: []byte(key)}
	for _, change := range change {
		change(r)
	}
	return create(r)
}

func from(revision int64) func(*pb.WatchCreateRequest) {
	return func(r *pb.WatchCreateRequest) { r.StartRevision = revision }
}

func under(id int64) func(*pb.WatchCreateRequest) {
	return func(r *pb.WatchCreateRequest) { r.WatchId = id }
}

func prefixed(r *pb.WatchCreateRequest) {
	r.RangeEnd = append(append([]byte{}, r.Key[:len(r.Key)-1]...), r.Key[len(r.Key)-1]+1)
}

var conversations = []struct {
	name string
	hold func(*conversation)
}{
	{"catching up has the header of now", func(c *conversation) {
		c.ask(put("talk/a", "1"), put("talk/a", "2"), put("other", "1"))
		c.send(on("talk/", prefixed, from(c.head-2)))
		c.hear(2)
	}},
	{"an event as it happens", func(c *conversation) {
		c.send(on("talk/", prefixed))
		c.hear(1)
		c.ask(put("talk/a", "1"))
		c.hear(1)
		c.ask(del("talk/a", ""), put("talk/a", "2"))
		c.hear(2)
	}},
	{"a transaction is one message in the order of its operations", func(c *conversation) {
		c.ask(put("talk/z", "1"), put("talk/y", "1"))
		c.send(on("talk/", prefixed, func(r *pb.WatchCreateRequest) { r.PrevKv = true }))
		c.hear(1)
		c.ask(then(put("talk/c", "1"), del("talk/y", "talk/zz"), put("talk/b", "1"), then(put("talk/a", "1"))))
		c.hear(1)
	}},
	{"progress of all watchers", func(c *conversation) {
		c.send(on("talk/a"), on("talk/b"))
		c.hear(2)
		c.ask(put("talk/none", "1"))
		c.send(progress())
		c.hear(1)
	}},
	{"no progress before all have started", func(c *conversation) {
		c.ask(put("talk/a", "1"))
		c.send(on("talk/a", from(c.head+9)), on("talk/b"))
		c.hear(2)
		c.send(progress())
		c.send(on("talk/c"))
		c.hear(1)
		c.ask(put("talk/b", "1"))
		c.hear(1)
	}},
	{"no progress without a watcher", func(c *conversation) {
		c.send(progress(), on("talk/a"))
		c.hear(1)
	}},
	{"a watcher from a revision to come", func(c *conversation) {
		c.ask(put("talk/a", "1"))
		c.send(on("talk/", prefixed, from(c.head+3)))
		c.hear(1)
		c.ask(put("talk/a", "2"), put("talk/a", "3"), put("talk/a", "4"))
		c.hear(1)
	}},
	{"cancelled, and cancelled again", func(c *conversation) {
		c.send(on("talk/a"), on("talk/b"), cancelWatch(0), cancelWatch(0), cancelWatch(77))
		c.hear(3)
		c.ask(put("talk/a", "1"), put("talk/b", "1"))
		c.hear(1)
	}},
	{"ids that are taken, free and taken again", func(c *conversation) {
		c.send(on("talk/a", under(5)), on("talk/b", under(5)), cancelWatch(5))
		c.hear(3)
		c.send(on("talk/c", under(5)), on("talk/d"), on("talk/e"))
		c.hear(3)
		c.ask(put("talk/c", "1"))
		c.hear(1)
	}},
	{"nothing when all events are filtered", func(c *conversation) {
		filter := func(r *pb.WatchCreateRequest) {
			r.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}
		}
		c.send(on("talk/", prefixed, filter))
		c.hear(1)
		c.ask(put("talk/a", "1"), del("talk/a", ""))
		c.hear(1)
	}},
	{"a client that has nothing more to say", func(c *conversation) {
		c.send(on("talk/a"))
		c.hear(1)
		_ = c.watch.CloseSend()
		c.ask(put("talk/a", "1"))
		c.hear(1)
	}},
	{"leases kept alive, known and not", func(c *conversation) {
		c.ask(&pb.LeaseGrantRequest{ID: 31, TTL: 3600}, &pb.LeaseGrantRequest{ID: 32, TTL: 77})
		c.renew(31, 32, 33, 0, -1, 31)
		c.ask(put("talk/a", "1"), &pb.LeaseRevokeRequest{ID: 31})
		c.renew(31, 32)
	}},
	{"keep-alives that have come to an end", func(c *conversation) {
		c.ask(&pb.LeaseGrantRequest{ID: 34, TTL: 3600})
		c.renew(34)
		_ = c.lease.CloseSend()
		r, err := c.lease.Recv()
		c.note(r, err)
	}},
}

// TestConversations holds each conversation with both servers, and wants the same messages.
func TestConversations(t *testing.T) {
	p := startPair(t, fast)
	defer p.stop()
	for _, conversation := range conversations {
		for _, leader := range []string{"false", "true"} {
			ours, reference := both(p, func(s *side) []string {
				ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "hasleader", leader), 10*time.Second)
				defer cancel()
				return talk(ctx, s, conversation.hold)
			})
			for i := range max(len(ours), len(reference)) {
				if at(ours, i) != at(reference, i) || strings.Contains(at(ours, i), "context deadline") {
					t.Errorf("%s: message %d\n got: %s\nwant: %s", conversation.name, i, at(ours, i), at(reference, i))
					break
				}
			}
		}
	}
}

func talk(ctx context.Context, s *side, hold func(*conversation)) []string {
	c := &conversation{side: s, ctx: ctx}
	if c.watch, c.failed = s.watch.Watch(ctx); c.failed == nil {
		c.lease, c.failed = s.lease.LeaseKeepAlive(ctx)
	}
	// Keys that an earlier conversation has left would be other events.
	c.ask(del("talk/", "talk0"))
	hold(c)
	return c.heard
}
