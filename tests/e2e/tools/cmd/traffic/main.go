// Command traffic puts mixed load on a cluster through clientv3 and records what it asked and what it was told: a history for tests/check.
//
// Errors of requests are part of the history and never end the run. With -final it waits at the end until every
// member answers, and records what each holds. The history is one JSON object a line, each written at once.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

type options struct {
	endpoints   []string
	cacert      string
	cert        string
	key         string
	seed        uint64
	seconds     int
	history     string
	clients     int
	rate        int
	keys        int
	large       int
	prefix      string
	final       bool
	gone        []string
	compactions bool
}

func main() {
	o, err := parse()
	if err == nil {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "traffic:", err)
		os.Exit(1)
	}
}

func parse() (options, error) {
	var o options
	var endpoints, gone string
	flag.StringVar(&endpoints, "endpoints", "", "URLs of the members, with commas between them")
	flag.StringVar(&o.cacert, "cacert", "", "file with the CA of the members' certificates")
	flag.StringVar(&o.cert, "cert", "", "file with the client's certificate")
	flag.StringVar(&o.key, "key", "", "file with its key")
	flag.Uint64Var(&o.seed, "seed", 1, "decides what each client asks for")
	flag.IntVar(&o.seconds, "seconds", 30, "how long to send requests; SIGTERM ends it earlier")
	flag.StringVar(&o.history, "history", "", "file to write")
	flag.IntVar(&o.clients, "clients", 9, "requests under way at a time, besides the watches")
	flag.IntVar(&o.rate, "rate", 200, "requests a second of all clients together")
	flag.IntVar(&o.keys, "keys", 14, "size of the key space")
	flag.IntVar(&o.large, "large", 10, "how many of a thousand values are large; with 0 there are no bursts either")
	flag.StringVar(&o.prefix, "prefix", "t/", "what the keys begin with")
	flag.BoolVar(&o.final, "final", false, "record what each member holds at the end")
	flag.StringVar(&gone, "gone", "", "with -final: URLs of members that are not there at the end, with commas between them")
	flag.BoolVar(&o.compactions, "compactions", true, "compact now and then")
	flag.Parse()
	o.endpoints = strings.FieldsFunc(endpoints, func(r rune) bool { return r == ',' })
	o.gone = strings.FieldsFunc(gone, func(r rune) bool { return r == ',' })
	if len(o.endpoints) == 0 || o.history == "" {
		return o, errors.New("-endpoints and -history are needed")
	}
	if o.seconds < 1 || o.clients < 1 || o.rate < 1 || o.keys < 2 || o.prefix == "" {
		return o, errors.New("-seconds, -clients and -rate are above 0, -keys above 1, -prefix is not empty")
	}
	return o, nil
}

func run(o options) error {
	t, err := newTraffic(o)
	if err != nil {
		return err
	}
	stopped, release := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer release()
	base, err := t.base(stopped)
	if err != nil {
		return err
	}
	watching, stopWatching := context.WithCancel(context.Background())
	defer stopWatching()
	var watches sync.WaitGroup
	t.startWatches(watching, &watches, base)

	sending, stopSending := context.WithTimeout(stopped, time.Duration(o.seconds)*time.Second)
	defer stopSending()
	var clients sync.WaitGroup
	for id := 1; id <= o.clients; id++ {
		clients.Go(func() { t.client(id).run(sending) })
	}
	if o.compactions {
		clients.Go(func() { t.client(o.clients + 1).compactNowAndThen(sending) })
	}
	if o.large > 0 {
		clients.Go(func() { t.client(o.clients + 2).burstNowAndThen(sending) })
	}
	clients.Wait()
	if o.final {
		t.final(context.Background())
	}
	stopWatching()
	watches.Wait()
	t.history.write(record{Type: "done", At: t.history.now()}, "done")
	fmt.Println(t.summary())
	return t.history.close()
}
