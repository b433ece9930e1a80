// Command asleep stops the leader of three members again and again, lets another lead meanwhile, and asks the old one, as it wakes, for
// what the others have acknowledged: a linearizable read must show it or fail.
//
// All members take writes the whole time, so that answers to messages of the old leader wait for it when it wakes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

const (
	writers = 24
	// Reads that wait for the sleeper; whichever of them is served first may be served wrongly.
	readers = 30
	// Until another member leads, on a machine that does much else.
	electionLimit = 30 * time.Second
	readLimit     = 10 * time.Second
)

type member struct {
	url    string
	pid    int
	client *clientv3.Client
}

type cluster struct {
	members []member
	byID    map[uint64]int
	// The latest revision that any writer was told.
	acknowledged atomic.Int64
}

func main() {
	endpoints := flag.String("endpoints", "", "URLs of the members, with commas between them")
	pids := flag.String("pids", "", "their processes, in the same order")
	rounds := flag.Int("rounds", 40, "how often to stop the leader")
	flag.Parse()
	c, err := connect(strings.Split(*endpoints, ","), strings.Split(*pids, ","))
	if err == nil {
		err = c.run(*rounds)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "asleep:", err)
		os.Exit(1)
	}
	fmt.Printf("%d sleeps, %d writes, no stale read\n", *rounds, c.acknowledged.Load())
}

func connect(urls, pids []string) (*cluster, error) {
	if len(urls) != len(pids) {
		return nil, errors.New("-endpoints and -pids name different numbers of members")
	}
	c := &cluster{byID: map[uint64]int{}}
	for i, url := range urls {
		pid, err := strconv.Atoi(pids[i])
		if err != nil {
			return nil, err
		}
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, Logger: zap.NewNop()})
		if err != nil {
			return nil, err
		}
		status, err := client.Status(context.Background(), url)
		if err != nil {
			return nil, err
		}
		c.members = append(c.members, member{url, pid, client})
		c.byID[status.Header.MemberId] = i
	}
	return c, nil
}

func (c *cluster) run(rounds int) error {
	writing, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	for w := range writers {
		all.Go(func() { c.write(writing, w) })
	}
	for round := range rounds {
		if err := c.sleep(round); err != nil {
			return fmt.Errorf("sleep %d: %w", round, err)
		}
	}
	return nil
}

func (c *cluster) write(ctx context.Context, w int) {
	client := c.members[w%len(c.members)].client
	for n := 0; ctx.Err() == nil; n++ {
		limited, cancel := context.WithTimeout(ctx, 2*time.Second)
		answer, err := client.Put(limited, fmt.Sprint("key", w), fmt.Sprint(n))
		cancel()
		if err == nil {
			c.told(answer.Header.Revision)
		}
	}
}

func (c *cluster) told(revision int64) {
	for old := c.acknowledged.Load(); revision > old && !c.acknowledged.CompareAndSwap(old, revision); {
		old = c.acknowledged.Load()
	}
}

// Sleep stops the leader until another leads and has acknowledged writes, and reads at it as it wakes.
func (c *cluster) sleep(round int) error {
	leader, err := c.await(func(int) bool { return true })
	if err != nil {
		return err
	}
	sleeper := c.members[leader]
	if err := syscall.Kill(sleeper.pid, syscall.SIGSTOP); err != nil {
		return err
	}
	floor, err := c.moveOn(leader)
	answers := make(chan error, readers)
	for range readers {
		go func() { answers <- read(sleeper.client, floor) }()
	}
	// Some of them lie at its door when it wakes, others come as it does.
	time.Sleep(time.Duration(50+20*(round%10)) * time.Millisecond)
	err = errors.Join(err, syscall.Kill(sleeper.pid, syscall.SIGCONT))
	for range readers {
		err = errors.Join(err, <-answers)
	}
	return err
}

// MoveOn waits for another leader, and returns a revision that was acknowledged under it.
func (c *cluster) moveOn(leader int) (int64, error) {
	next, err := c.await(func(other int) bool { return other != leader })
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), electionLimit)
	defer cancel()
	answer, err := c.members[next].client.Put(ctx, "meanwhile", "")
	if err != nil {
		return 0, err
	}
	return max(answer.Header.Revision, c.acknowledged.Load()), nil
}

// Await asks who is awake until somebody knows a leader that is wanted.
func (c *cluster) await(wanted func(int) bool) (int, error) {
	for end := time.Now().Add(electionLimit); time.Now().Before(end); {
		for _, m := range c.members {
			ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
			status, err := m.client.Status(ctx, m.url)
			cancel()
			if err != nil || status.Leader == 0 {
				continue
			}
			if leader, known := c.byID[status.Leader]; known && wanted(leader) {
				return leader, nil
			}
		}
	}
	return 0, fmt.Errorf("no leader within %v", electionLimit)
}

// Read is refused, or shows what was acknowledged before it was asked for.
func read(client *clientv3.Client, floor int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), readLimit)
	defer cancel()
	answer, err := client.Get(ctx, "meanwhile")
	if err == nil && answer.Header.Revision < floor {
		return fmt.Errorf("stale: revision %d after %d was acknowledged", answer.Header.Revision, floor)
	}
	return nil
}
