package main

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// KeepLibraryWatch is a watch as programs use it: clientv3 resumes it by itself. It is opened again only when the library gives up.
func (t *traffic) keepLibraryWatch(ctx context.Context, endpoint int, base int64) {
	old := &segment{endpoint: endpoint, next: base + 1, whole: true, open: watchOpen{
		Key: t.prefix, End: t.end(), PrevKv: true, Progress: true, Resuming: true,
	}}
	for ctx.Err() == nil {
		s := *old
		s.open.Start, s.over, s.created = old.next, false, true
		t.recordOpen(&s, old.id)
		t.replace(old, &s)
		t.libraryWatch(ctx, &s)
		if !s.over {
			t.recordEnd(&s, nil, true)
		}
		old = &s
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (t *traffic) libraryWatch(parent context.Context, s *segment) {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(parent))
	defer cancel()
	conn := t.conns[s.endpoint]
	channel := conn.Watch(ctx, s.open.Key, clientv3.WithRange(s.open.End), clientv3.WithRev(s.open.Start), clientv3.WithPrevKV(),
		clientv3.WithProgressNotify(), clientv3.WithFragment())
	ask := time.NewTicker(900 * time.Millisecond)
	defer ask.Stop()
	for {
		select {
		case <-ask.C:
			limited, done := context.WithTimeout(ctx, 500*time.Millisecond)
			_ = conn.RequestProgress(limited)
			done()
		case r, open := <-channel:
			if !open {
				return
			}
			line := record{
				Type: "watch", Watch: s.id, Endpoint: s.endpoint, At: t.history.now(), Header: headerOf(&r.Header),
				Events: clientEvents(r.Events), Created: r.Created, Canceled: r.Canceled, Compact: r.CompactRevision,
			}
			if err := r.Err(); err != nil {
				line.Reason = err.Error()
			}
			t.history.write(line, "watch responses")
			t.advance(s, line)
			if r.Canceled || r.Err() != nil {
				s.over = true
				return
			}
		}
	}
}

func clientEvents(events []*clientv3.Event) []event {
	out := make([]event, len(events))
	for i, e := range events {
		out[i] = event{Delete: e.Type == clientv3.EventTypeDelete, Kv: *keyValueOf(e.Kv), Prev: keyValueOf(e.PrevKv)}
	}
	return out
}
