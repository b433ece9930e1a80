package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	grpcstatus "google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// A request that is not answered by then has an unknown outcome.
const requestLimit = 4 * time.Second

// Traffic is what all clients share.
type traffic struct {
	options
	history *history
	conns   []*clientv3.Client // one for each endpoint
	all     *clientv3.Client   // knows all of them
	latest  atomic.Int64       // highest revision of any answer
	covered atomic.Int64       // highest revision up to which a watch over all keys has seen everything
	compact atomic.Int64       // highest revision that a compaction was asked for
	watches atomic.Int64       // numbers them

	lock   sync.Mutex
	leases []lease
	live   map[*segment]bool // long watches, which the end waits for
}

type lease struct {
	id     int64
	doomed bool // nobody keeps it alive
}

func newTraffic(o options) (*traffic, error) {
	config, err := tlsConfig(o)
	if err != nil {
		return nil, err
	}
	t := &traffic{options: o, live: map[*segment]bool{}}
	for _, endpoint := range o.endpoints {
		conn, err := dial([]string{endpoint}, config, o.cacert)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", endpoint, err)
		}
		t.conns = append(t.conns, conn)
	}
	if t.all, err = dial(o.endpoints, config, o.cacert); err != nil {
		return nil, err
	}
	if t.history, err = newHistory(o.history); err != nil {
		return nil, err
	}
	t.history.write(record{
		Type: "start", Seed: o.seed, Endpoints: o.endpoints, Prefix: o.prefix, UnixNs: t.history.start.UnixNano(),
	}, "start")
	return t, nil
}

func tlsConfig(o options) (*tls.Config, error) {
	if !strings.HasPrefix(o.endpoints[0], "https") {
		return nil, nil
	}
	info := transport.TLSInfo{TrustedCAFile: o.cacert, CertFile: o.cert, KeyFile: o.key}
	return info.ClientConfig()
}

// Dial notices a member that is stopped or cut off within seconds, and one that is back within one.
func dial(endpoints []string, config *tls.Config, cacert string) (*clientv3.Client, error) {
	// What clientv3 does for its own requests; those that go past it get gRPC's 4 MiB, which a watch that catches up exceeds.
	options := []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)), grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: time.Second},
		MinConnectTimeout: 2 * time.Second,
	})}
	if config != nil {
		options = append(options, grpc.WithTransportCredentials(rereading{credentials.NewTLS(config), config, cacert}))
	}
	return clientv3.New(clientv3.Config{
		Endpoints: endpoints, TLS: config, Logger: zap.NewNop(),
		DialKeepAliveTime: 2 * time.Second, DialKeepAliveTimeout: 3 * time.Second,
		DialOptions: options,
	})
}

// Rereading trusts what the file of CAs holds when it connects: clientv3 trusts for ever what it has read as it began, and the CAs of a
// cluster are rotated.
type rereading struct {
	credentials.TransportCredentials
	config *tls.Config
	cacert string
}

func (r rereading) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	pem, err := os.ReadFile(r.cacert)
	if err != nil {
		return nil, nil, err
	}
	config := r.config.Clone()
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, nil, fmt.Errorf("%s: no certificate", r.cacert)
	}
	return credentials.NewTLS(config).ClientHandshake(ctx, authority, conn)
}

func (r rereading) Clone() credentials.TransportCredentials {
	return rereading{r.TransportCredentials.Clone(), r.config, r.cacert}
}

func (t *traffic) conn(endpoint int) *clientv3.Client {
	if endpoint < 0 {
		return t.all
	}
	return t.conns[endpoint]
}

func (t *traffic) end() string { return clientv3.GetPrefixRangeEnd(t.prefix) }

func raise(a *atomic.Int64, to int64) {
	for old := a.Load(); old < to && !a.CompareAndSwap(old, to); old = a.Load() {
	}
}

// Base is the first line about the store: everything that was in it before.
func (t *traffic) base(stopped context.Context) (int64, error) {
	for deadline := time.Now().Add(60 * time.Second); ; {
		request := &rangeRequest{Key: t.prefix, End: t.end()}
		ctx, cancel := context.WithTimeout(stopped, requestLimit)
		call := t.history.now()
		r, err := clientv3.RetryKVClient(t.all).Range(ctx, request.wire())
		cancel()
		if err == nil {
			t.latest.Store(r.Header.Revision)
			t.covered.Store(r.Header.Revision)
			t.history.write(record{
				Type: "base", Endpoint: -1, Call: call, Return: t.history.now(), Header: headerOf(r.Header),
				Response: &response{Range: rangeResponseOf(r)},
			}, "base")
			return r.Header.Revision, nil
		}
		if stopped.Err() != nil || time.Now().After(deadline) {
			return 0, fmt.Errorf("the cluster does not answer: %w", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// Do sends one request within its limit and records it.
func (t *traffic) do(client, endpoint int, request request, send func(context.Context) (*pb.ResponseHeader, *response, error)) (*response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
	defer cancel()
	r := record{Type: "op", Client: client, Endpoint: endpoint, Request: &request, Call: t.history.now()}
	header, response, err := send(ctx)
	r.Return = t.history.now()
	outcome := "ok"
	if err != nil {
		r.Error = failureOf(err, request)
		outcome = r.Error.Code
	} else {
		r.Header, r.Response = headerOf(header), response
		raise(&t.latest, header.GetRevision())
	}
	t.history.write(r, outcome)
	return response, err
}

// Refused with one of these, a request has had no effect.
var definite = []codes.Code{
	codes.InvalidArgument, codes.NotFound, codes.OutOfRange, codes.FailedPrecondition, codes.PermissionDenied,
	codes.Unauthenticated, codes.ResourceExhausted, codes.Unimplemented,
}

// CodeOf knows that clientv3 turns some statuses into errors of its own, which keep the code.
func codeOf(err error) (codes.Code, string) {
	var coded interface{ Code() codes.Code }
	if errors.As(err, &coded) {
		return coded.Code(), err.Error()
	}
	return grpcstatus.Code(err), grpcstatus.Convert(err).Message()
}

func failureOf(err error, request request) *failure {
	code, text := codeOf(err)
	sure := slices.Contains(definite, code)
	if code == codes.FailedPrecondition && request.Grant != nil {
		sure = false // the lease exists, perhaps by this very request
	}
	if code == codes.ResourceExhausted && !strings.HasPrefix(text, "etcdserver:") {
		sure = false // an answer that was too large is no refusal
	}
	if code == codes.Unavailable && strings.Contains(text, "Error while dialing") {
		sure = true // never sent
	}
	return &failure{Code: code.String(), Text: text, Definite: sure}
}

// Client is the id-th: most keep to one endpoint, every fourth knows all of them.
func (t *traffic) client(id int) *client {
	endpoint := id % len(t.conns)
	if id%4 == 0 {
		endpoint = -1
	}
	conn := t.conn(endpoint)
	return &client{
		traffic: t, id: id, endpoint: endpoint, conn: conn, kv: clientv3.RetryKVClient(conn),
		// Without the retries of clientv3, with which a grant or revocation could fail because it succeeded.
		lease:  pb.NewLeaseClient(conn.ActiveConnection()),
		random: rand.New(rand.NewPCG(t.seed, uint64(id))),
	}
}

func (t *traffic) summary() string {
	t.history.lock.Lock()
	defer t.history.lock.Unlock()
	var parts []string
	for outcome, count := range t.history.count {
		parts = append(parts, fmt.Sprintf("%s %d", outcome, count))
	}
	slices.Sort(parts)
	return fmt.Sprintf("traffic: %s; revision %d", strings.Join(parts, ", "), t.latest.Load())
}
