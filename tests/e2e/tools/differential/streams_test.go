package differential

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// TestProgressNotify compares who is told of progress, and at which revision; how often is free.
func TestProgressNotify(t *testing.T) {
	p := startPair(t, append([]string{"--watch-progress-notify-interval=100ms"}, fast...))
	defer p.stop()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	notify := func(r *pb.WatchCreateRequest) { r.ProgressNotify = true }
	ours, reference := both(p, func(s *side) []string {
		heard := talk(ctx, s, func(c *conversation) {
			c.send(on("talk/a", notify), on("talk/b"), on("talk/c", notify, from(100)))
			c.hear(3)
			c.hear(3) // of no news
			c.ask(put("talk/none", "1"))
			for c.failed == nil && !strings.Contains(c.heard[len(c.heard)-1], fmt.Sprintf(" revision:%d > ", c.head)) {
				c.hear(1)
			}
			c.ask(put("talk/b", "1"))
			for c.failed == nil && !strings.Contains(c.heard[len(c.heard)-1], "events:") {
				c.hear(1)
			}
			c.hear(2)
		})
		return slices.Compact(heard)
	})
	if !slices.Equal(ours, reference) {
		t.Errorf("\n got: %s\nwant: %s", strings.Join(ours, "\n      "), strings.Join(reference, "\n      "))
	}
}

// TestSnapshotMessages holds the snapshot to its form; what is in it, etcd's own tools say elsewhere.
func TestSnapshotMessages(t *testing.T) {
	p := startPair(t, fast)
	defer p.stop()
	ours, reference := both(p, func(s *side) string {
		s.ask(t.Context(), put("snapshot", strings.Repeat("s", 200_000)))
		status, err := s.maintenance.Status(t.Context(), &pb.StatusRequest{})
		if err != nil {
			return fmt.Sprint(err)
		}
		form, err := snapshotForm(t.Context(), s, status.Header.Revision)
		return fmt.Sprint(form, err)
	})
	if want := "[its hash last, nothing remains] <nil>"; ours != reference || ours != want {
		t.Errorf("\n got: %s\netcd: %s\nwant: %s", ours, reference, want)
	}
}

func snapshotForm(ctx context.Context, s *side, head int64) ([]string, error) {
	stream, err := s.maintenance.Snapshot(ctx, &pb.SnapshotRequest{})
	if err != nil {
		return nil, err
	}
	hash, version := sha256.New(), ""
	last := &pb.SnapshotResponse{}
	for first := true; ; first = false {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if !first && r.RemainingBytes != last.RemainingBytes-min(last.RemainingBytes, uint64(len(r.Blob))) {
			return nil, fmt.Errorf("%d bytes remain, then %d after %d", last.RemainingBytes, r.RemainingBytes, len(r.Blob))
		}
		// Ours tells in the first one which revision it is of; etcd has no header.
		told := r.Header == nil || first && r.Header.Revision == head
		if len(r.Blob) > 32<<10 || !told || !first && r.Version != version {
			return nil, fmt.Errorf("a blob of %d bytes, header %v, version %q", len(r.Blob), r.Header, r.Version)
		}
		_, _ = hash.Write(last.Blob)
		last, version = r, r.Version
	}
	form := []string{}
	if string(last.Blob) == string(hash.Sum(nil)) {
		form = append(form, "its hash last,")
	}
	if last.RemainingBytes == 0 {
		form = append(form, "nothing remains")
	}
	return form, nil
}
