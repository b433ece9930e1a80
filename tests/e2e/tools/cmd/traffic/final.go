package main

import (
	"context"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	finalLimit = 60 * time.Second
	drainLimit = 30 * time.Second
)

// Final waits until every member answers, and records what each holds at one revision that all of them have.
func (t *traffic) final(ctx context.Context) {
	left := t.left()
	t.history.write(record{Type: "final", Endpoint: -1, At: t.history.now(), Left: left}, "final")
	ctx, cancel := context.WithTimeout(ctx, finalLimit)
	defer cancel()
	revision := int64(0)
	for _, endpoint := range left {
		r, ok := t.finalRead(ctx, endpoint)
		if !ok {
			continue
		}
		revision = max(revision, r)
	}
	if revision == 0 {
		return
	}
	t.drain(revision)
	for _, endpoint := range left {
		t.finalHash(ctx, endpoint, revision)
		t.finalMembers(ctx, endpoint)
		t.finalStatus(ctx, endpoint)
	}
}

// Left are the members that are there at the end.
func (t *traffic) left() []int {
	var left []int
	for i, endpoint := range t.endpoints {
		if !slices.Contains(t.gone, endpoint) {
			left = append(left, i)
		}
	}
	return left
}

// Poll tries until it succeeds or the time is up, and records a failure then.
func (t *traffic) poll(ctx context.Context, endpoint int, once func(context.Context) error) bool {
	for {
		limited, cancel := context.WithTimeout(ctx, requestLimit)
		err := once(limited)
		cancel()
		if err == nil {
			return true
		}
		select {
		case <-ctx.Done():
			t.history.write(record{Type: "final", Endpoint: endpoint, At: t.history.now(), Error: failureOf(err, request{})}, "final failed")
			return false
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (t *traffic) finalRead(ctx context.Context, endpoint int) (int64, bool) {
	c := t.client(0)
	c.endpoint, c.conn, c.seen = endpoint, t.conns[endpoint], map[string]keyValue{}
	c.kv = pb.NewKVClient(c.conn.ActiveConnection())
	revision := int64(0)
	ok := t.poll(ctx, endpoint, func(ctx context.Context) error {
		r := &rangeRequest{Key: t.prefix, End: t.end()}
		_, err := c.do(0, endpoint, request{Range: r}, func(context.Context) (*pb.ResponseHeader, *response, error) {
			answer, err := c.kv.Range(ctx, r.wire())
			if err != nil {
				return nil, nil, err
			}
			revision = answer.Header.Revision
			return answer.Header, &response{Range: rangeResponseOf(answer)}, nil
		})
		return err
	})
	return revision, ok
}

func (t *traffic) finalHash(ctx context.Context, endpoint int, revision int64) {
	client := pb.NewMaintenanceClient(t.conns[endpoint].ActiveConnection())
	t.poll(ctx, endpoint, func(ctx context.Context) error {
		r, err := client.HashKV(ctx, &pb.HashKVRequest{Revision: revision})
		if err == nil {
			t.history.write(record{
				Type: "final", Endpoint: endpoint, At: t.history.now(), Header: headerOf(r.Header),
				Hash: &hash{Revision: revision, Hash: r.Hash, Compact: r.CompactRevision},
			}, "final")
		}
		return err
	})
}

func (t *traffic) finalMembers(ctx context.Context, endpoint int) {
	client := pb.NewClusterClient(t.conns[endpoint].ActiveConnection())
	t.poll(ctx, endpoint, func(ctx context.Context) error {
		r, err := client.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
		if err != nil {
			return err
		}
		members := make([]member, len(r.Members))
		for i, m := range r.Members {
			members[i] = member{m.ID, m.Name, m.PeerURLs, m.ClientURLs, m.IsLearner}
		}
		t.history.write(record{
			Type: "final", Endpoint: endpoint, At: t.history.now(), Header: headerOf(r.Header), Members: members,
		}, "final")
		return nil
	})
}

func (t *traffic) finalStatus(ctx context.Context, endpoint int) {
	client := pb.NewMaintenanceClient(t.conns[endpoint].ActiveConnection())
	t.poll(ctx, endpoint, func(ctx context.Context) error {
		r, err := client.Status(ctx, &pb.StatusRequest{})
		if err == nil {
			t.history.write(record{
				Type: "final", Endpoint: endpoint, At: t.history.now(), Header: headerOf(r.Header),
				Status: &status{r.Leader, r.Version, r.RaftAppliedIndex, r.IsLearner, r.Errors},
			}, "final")
		}
		return err
	})
}

// Drain gives the long watches time to come to the revision; the history says of each whether it should have.
func (t *traffic) drain(revision int64) {
	for deadline := time.Now().Add(drainLimit); time.Now().Before(deadline) && t.behind(revision) > 0; {
		time.Sleep(50 * time.Millisecond)
	}
	t.lock.Lock()
	defer t.lock.Unlock()
	for s := range t.live {
		if !slices.Contains(t.left(), s.endpoint) {
			continue
		}
		t.history.write(record{
			Type: "drain", Watch: s.id, Endpoint: s.endpoint, At: t.history.now(), Revision: revision,
		}, "drained")
	}
}

func (t *traffic) behind(revision int64) int {
	t.lock.Lock()
	defer t.lock.Unlock()
	count := 0
	for s := range t.live {
		if s.next <= revision && slices.Contains(t.left(), s.endpoint) {
			count++
		}
	}
	return count
}
