// Command load puts one kind of load on a server through clientv3, as users do, and measures it as they see it.
//
// It connects, prepares and warms up, prints the line "ready", waits for a line on its standard input, measures,
// prints one JSON object, and keeps its connections until its standard input ends: whoever started it can read the
// server's counters at both ends of what is measured. Any request that fails ends it with a message and exit code 1.
//
// Of several members each connection has one, in turn, and the first has the leader: what a single client measures is
// the leader's, on every server alike.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// Options are the same for all workloads; each reads those that concern it.
type options struct {
	endpoints []string
	leader    bool
	workload  string
	clients   int
	conns     int
	keys      int
	valueSize int
	time      time.Duration
	limit     time.Duration
}

// Result is what is printed at the end.
type result struct {
	Workload string             `json:"workload"`
	Metrics  map[string]float64 `json:"metrics"`
	// Of several members: who led them, and how often that changed.
	Leader    string   `json:"leader,omitempty"`
	Elections uint64   `json:"elections"`
	NotServed []string `json:"not_served"`
}

// A workload prepares, calls start once, and measures from then on.
type workload func(ctx context.Context, o options, start func() error) (result, error)

var workloads = map[string]workload{
	"put":                closed(preparePut),
	"cas":                closed(prepareCAS),
	"range":              closed(prepareRange(false)),
	"range-serializable": closed(prepareRange(true)),
	"list":               closed(prepareList),
	"list-pages":         closed(preparePages),
	"count":              closed(prepareCount),
	"keepalive":          closed(prepareKeepAlive),
	"watch":              watch,
	"preload":            preload,
	"first-read":         firstRead,
	"maintenance":        maintenance,
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run() error {
	o, err := parse()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), o.limit, fmt.Errorf("not done within %s", o.limit))
	defer cancel()
	result, err := measure(ctx, o)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = errors.Join(err, cause)
		}
		return fmt.Errorf("%s: %w", o.workload, err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		return err
	}
	return untilReleased(ctx)
}

// Measure runs the workload, and looks at who leads the members before and after.
func measure(ctx context.Context, o options) (r result, err error) {
	if len(o.endpoints) == 1 {
		r, err = workloads[o.workload](ctx, o, handshake(ctx))
		r.Workload = o.workload
		return r, err
	}
	all := o.endpoints
	before, err := findLeader(ctx, all)
	if err != nil {
		return result{}, err
	}
	o.endpoints = before.first(all)
	if o.leader {
		o.endpoints = o.endpoints[:1]
	}
	if r, err = workloads[o.workload](ctx, o, handshake(ctx)); err != nil {
		return result{}, err
	}
	after, err := findLeader(ctx, all)
	if err != nil {
		return result{}, err
	}
	r.Workload, r.Leader, r.Elections = o.workload, before.endpoint, after.term-before.term
	return r, nil
}

func parse() (options, error) {
	var o options
	endpoints := flag.String("endpoints", "", "HOST:PORT of each member, with commas between")
	flag.BoolVar(&o.leader, "leader", false, "all connections to the leader")
	flag.StringVar(&o.workload, "workload", "", "what to do: "+strings.Join(names(), ", "))
	flag.IntVar(&o.clients, "clients", 1, "requests under way at a time; streams of watch and keepalive")
	flag.IntVar(&o.conns, "conns", 1, "connections that they share")
	flag.IntVar(&o.keys, "keys", 10000, "keys that the workload works on")
	flag.IntVar(&o.valueSize, "value-size", 256, "bytes of a value")
	flag.DurationVar(&o.time, "time", 5*time.Second, "how long to measure")
	flag.DurationVar(&o.limit, "limit", 2*time.Minute, "when to give up")
	flag.Parse()
	o.endpoints = strings.Split(*endpoints, ",")
	if workloads[o.workload] == nil {
		return o, fmt.Errorf("no workload %q: %s", o.workload, strings.Join(names(), ", "))
	}
	if *endpoints == "" || o.clients < 1 || o.conns < 1 || o.keys < 1 || o.valueSize < stampSize || o.time <= 0 {
		return o, fmt.Errorf("-endpoints is needed; -clients, -conns, -keys and -time are above 0, -value-size at least %d", stampSize)
	}
	return o, nil
}

func names() []string {
	names := make([]string, 0, len(workloads))
	for name := range workloads {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// UntilReleased waits for the end of the standard input.
func untilReleased(ctx context.Context) error {
	released := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin)
		released <- err
	}()
	select {
	case err := <-released:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Handshake says that all is ready and waits for the answer.
func handshake(ctx context.Context) func() error {
	return func() error {
		answer := make(chan error, 1)
		go func() {
			fmt.Println("ready")
			_, err := bufio.NewReader(os.Stdin).ReadString('\n')
			answer <- err
		}()
		select {
		case err := <-answer:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
