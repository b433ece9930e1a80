package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// A leader of several members, as it says of itself.
type leader struct {
	endpoint string
	term     uint64
}

// FindLeader waits until one of the members says that it leads.
func findLeader(ctx context.Context, endpoints []string) (leader, error) {
	client, err := connect(endpoints[0])
	if err != nil {
		return leader{}, err
	}
	defer client.Close()
	for {
		for _, endpoint := range endpoints {
			if err := waitForListener(ctx, endpoint); err != nil {
				return leader{}, err
			}
			status, err := client.Status(ctx, endpoint)
			if err != nil {
				return leader{}, fmt.Errorf("status of %s: %w", endpoint, err)
			}
			if status.Leader != 0 && status.Leader == status.Header.MemberId {
				return leader{endpoint, status.RaftTerm}, nil
			}
		}
		select {
		case <-ctx.Done():
			return leader{}, fmt.Errorf("none of %v leads: %w", endpoints, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// First is the endpoints with the leader's before all others.
func (l leader) first(endpoints []string) []string {
	others := slices.DeleteFunc(slices.Clone(endpoints), func(endpoint string) bool { return endpoint == l.endpoint })
	return append([]string{l.endpoint}, others...)
}
