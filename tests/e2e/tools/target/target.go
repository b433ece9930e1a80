// Package target connects the suites to the server under test, which the environment names:
//
//	E2E_ENDPOINT            http://127.0.0.1:2379, https://..., unix://... or unixs://...
//	E2E_REFERENCE_ENDPOINT  a real etcd, for the suites that compare the two
//	E2E_CACERT, E2E_CERT, E2E_KEY   TLS material for https and unixs endpoints
package target

import (
	"context"
	"crypto/tls"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Endpoint is the server under test; a suite without one cannot run.
func Endpoint(t testing.TB) string { return mustEnv(t, "E2E_ENDPOINT") }

// ReferenceEndpoint is the real etcd that answers are compared with.
func ReferenceEndpoint(t testing.TB) string { return mustEnv(t, "E2E_REFERENCE_ENDPOINT") }

// TLS is nil for endpoints without it.
func TLS(t testing.TB, endpoint string) *tls.Config {
	t.Helper()
	if u, err := url.Parse(endpoint); err != nil || (u.Scheme != "https" && u.Scheme != "unixs") {
		return nil
	}
	info := transport.TLSInfo{
		TrustedCAFile: mustEnv(t, "E2E_CACERT"),
		CertFile:      mustEnv(t, "E2E_CERT"),
		KeyFile:       mustEnv(t, "E2E_KEY"),
		ServerName:    "localhost",
	}
	config, err := info.ClientConfig()
	if err != nil {
		t.Fatalf("TLS files: %v", err)
	}
	return config
}

// Client dials the server under test. It may send requests larger than the server takes.
func Client(t testing.TB) *clientv3.Client { return Dial(t, Endpoint(t)) }

// Dial opens a client that is closed with the test.
func Dial(t testing.TB, endpoint string) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{
		Endpoints:          []string{endpoint},
		DialTimeout:        10 * time.Second,
		TLS:                TLS(t, endpoint),
		MaxCallSendMsgSize: 64 << 20,
		Logger:             zap.NewNop(), // expected errors are no news
	})
	if err != nil {
		t.Fatalf("dial %s: %v", endpoint, err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// Conn is the bare gRPC connection, for what clientv3 hides.
func Conn(t testing.TB) *grpc.ClientConn { return Client(t).ActiveConnection() }

// Context bounds each test: a hang is a failure.
func Context(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// Prefix is a part of the key space of the test's own.
func Prefix(t testing.TB) string {
	return "e2e/" + strings.ReplaceAll(t.Name(), " ", "_") + "/" + time.Now().Format("150405.000000000") + "/"
}

// WantStatus fails unless err is the gRPC status with exactly this code and text: clients match on the text.
func WantStatus(t testing.TB, err error, code codes.Code, text string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %s %q", code, text)
	}
	if got := status.Convert(err); got.Code() != code || got.Message() != text {
		t.Fatalf("error %s %q, want %s %q", got.Code(), got.Message(), code, text)
	}
}

func mustEnv(t testing.TB, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set", name)
	}
	return value
}

// MemoryMiB is a field of /proc/PID/status of the server under test, whose process E2E_PID names: VmRSS, VmHWM.
func MemoryMiB(t testing.TB, field string) int {
	t.Helper()
	process, err := os.ReadFile("/proc/" + mustEnv(t, "E2E_PID") + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(process), "\n") {
		if value, found := strings.CutPrefix(line, field+":"); found {
			kib, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kib >> 10
		}
	}
	t.Fatalf("no %s", field)
	return 0
}
