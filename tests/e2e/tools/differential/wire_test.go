package differential

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const rangePath = "/etcdserverpb.KV/Range"

// wireCall is a call with a header that gRPC's own client refuses to send.
type wireCall struct{ path, header, value string }

func (c wireCall) String() string { return fmt.Sprintf("%s with %s: %q", c.path, c.header, c.value) }

// call sends a Range of one key to the path.
func (c wireCall) call(ctx context.Context, s *side) (message, error) {
	dial := func(ctx context.Context, _, _ string, _ *tls.Config) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimPrefix(s.conn.Target(), "unix://"))
	}
	transport := &http2.Transport{AllowHTTP: true, DialTLSContext: dial}
	defer transport.CloseIdleConnections()
	body, err := get("wire", "").Marshal()
	if err != nil {
		return nil, err
	}
	frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://localhost"+c.path, bytes.NewReader(frame))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("Te", "trailers")
	request.Header.Set(c.header, c.value)
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	return grpcAnswer(response, answer)
}

// grpcAnswer reads the status, which is in the headers when there is no answer, and the answer.
func grpcAnswer(response *http.Response, body []byte) (message, error) {
	trailer := response.Trailer
	if trailer.Get("Grpc-Status") == "" {
		trailer = response.Header
	}
	code, err := strconv.Atoi(trailer.Get("Grpc-Status"))
	if err != nil {
		return nil, status.Errorf(codes.Unknown, "HTTP %s, %s, %s", response.Status, response.Header.Get("Content-Type"), body)
	}
	if code != 0 {
		text, err := url.PathUnescape(trailer.Get("Grpc-Message"))
		if err != nil || !strings.HasPrefix(text, "etcdserver: ") {
			text = "" // the gRPC library's own
		}
		return nil, status.Error(codes.Code(code), text)
	}
	if len(body) < 5 {
		return nil, fmt.Errorf("an answer of %d bytes", len(body))
	}
	answer := &pb.RangeResponse{}
	return answer, answer.Unmarshal(body[5:])
}

// TestHeaders sends calls with headers that mean something, well formed and not.
func TestHeaders(t *testing.T) {
	var edges []edge
	for _, header := range []struct {
		name   string
		values []string
	}{
		{"Hasleader", []string{"true", "false", "TRUE", "1", "", "true, true", "\xff"}},
		{"Client-Api-Version", []string{"3.6", "", "unknown", "3.6\xff", "\xc3\x28", strings.Repeat("v", 300)}},
		{"Token", []string{"", "nonsense", "\xff"}},
		{"Authorization", []string{"nonsense"}},
		{"Grpc-Timeout", []string{"10S", "99999999H", "1M", "10", "S", "", "-1S", "10X", "999999999S", "1.5S", "10s"}},
		{"Grpc-Encoding", []string{"identity", "no-such-compression"}},
		{"Grpc-Accept-Encoding", []string{"identity,gzip", "nonsense"}},
		{"Content-Type", []string{"application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8", "application/grpc+json", "application/grpc+nonsense"}},
		{"User-Agent", []string{"", "\xff"}},
	} {
		for _, value := range header.values {
			c := wireCall{rangePath, header.name, value}
			edges = append(edges, edge{c.String(), c})
		}
	}
	for _, path := range []string{"/", "/etcdserverpb.KV/", "/etcdserverpb.KV", "/etcdserverpb.KV/range", "/etcdserverpb.KV/Range/", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"} {
		c := wireCall{path, "X-Nothing", ""}
		edges = append(edges, edge{c.String(), c})
	}
	same(t, fast, edges)
}
