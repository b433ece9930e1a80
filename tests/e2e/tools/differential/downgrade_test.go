package differential

import (
	"context"
	"fmt"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// stored is sent by waiting until a member's storage version, which follows that of the cluster within seconds, is this one.
type stored string

func (v stored) String() string { return "storage version " + string(v) }

func (v stored) call(ctx context.Context, s *side) (message, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		got, err := s.maintenance.Status(ctx, &pb.StatusRequest{})
		if err != nil || got.StorageVersion == string(v) {
			return &pb.DefragmentResponse{}, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("the storage version is %s, not %s", got.StorageVersion, v)
		}
	}
}

func TestDowngrade(t *testing.T) {
	validate := func(version string) *pb.DowngradeRequest { return &pb.DowngradeRequest{Version: version} }
	enable := func(version string) *pb.DowngradeRequest {
		return &pb.DowngradeRequest{Action: pb.DowngradeRequest_ENABLE, Version: version}
	}
	cancel := &pb.DowngradeRequest{Action: pb.DowngradeRequest_CANCEL}
	same(t, fast, []edge{
		{"the version of the start", stored("3.6.0")},
		{"two versions back", validate("3.4")},
		{"one version back", validate("3.5")},
		{"one version back, with a patch", validate("3.5.9")},
		{"a later version", enable("3.7")},
		{"no version", enable("three")},
		{"an unknown action", &pb.DowngradeRequest{Action: 7, Version: "3.5"}},
		{"begin", enable("3.5")},
		{"the version follows", stored("3.5.0")},
		{"status", &pb.StatusRequest{}},
		{"what it is already", validate("3.5")},
		{"further back", validate("3.4")},
		{"further back, for good", enable("3.4")},
		{"end", cancel},
		{"the version comes back", stored("3.6.0")},
		{"status afterwards", &pb.StatusRequest{}},
		{"end again", cancel},
		{"one version back again", validate("3.5")},
	})
}
