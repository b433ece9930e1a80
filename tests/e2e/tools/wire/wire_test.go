// Package wire speaks HTTP/2 frame by frame: deadlines, pings and header abuse that a gRPC client cannot produce.
// It needs an endpoint without TLS.
package wire

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"garboard.dev/tests/e2e/tools/target"
)

type peer struct {
	testing.TB
	conn   net.Conn
	framer *http2.Framer
}

func dial(t *testing.T) *peer {
	t.Helper()
	u, err := url.Parse(target.Endpoint(t))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	p := &peer{TB: t, conn: conn, framer: http2.NewFramer(conn, conn)}
	p.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_, err = io.WriteString(conn, http2.ClientPreface)
	p.ok(err)
	p.ok(p.framer.WriteSettings())
	return p
}

func (p *peer) ok(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

func (p *peer) call(stream uint32, path string, extra ...hpack.HeaderField) {
	p.Helper()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: path},
		{Name: ":authority", Value: "localhost"}, {Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
	}, extra...) {
		p.ok(encoder.WriteField(field))
	}
	p.ok(p.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true}))
}

func (p *peer) send(stream uint32, message interface{ Marshal() ([]byte, error) }, end bool) {
	p.Helper()
	body, err := message.Marshal()
	p.ok(err)
	frame := make([]byte, 5, 5+len(body))
	binary.BigEndian.PutUint32(frame[1:], uint32(len(body)))
	p.ok(p.framer.WriteData(stream, end, append(frame, body...)))
}

// next is the next frame that is not of the connection's housekeeping.
func (p *peer) next() http2.Frame {
	p.Helper()
	for {
		frame, err := p.framer.ReadFrame()
		p.ok(err)
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				p.ok(p.framer.WriteSettingsAck())
			}
		case *http2.WindowUpdateFrame:
		case *http2.PingFrame:
			if !f.IsAck() {
				p.ok(p.framer.WritePing(true, f.Data))
			}
		default:
			return frame
		}
	}
}

// trailers reads to the end of the stream and gives its grpc-status and grpc-message.
func (p *peer) trailers(stream uint32) (string, string) {
	p.Helper()
	for {
		switch f := p.next().(type) {
		case *http2.MetaHeadersFrame:
			status, message := "", ""
			for _, field := range f.Fields {
				switch field.Name {
				case "grpc-status":
					status = field.Value
				case "grpc-message":
					message, _ = url.PathUnescape(field.Value) // the gRPC protocol has it percent-encoded
				}
			}
			if f.StreamID == stream && status != "" {
				return status, message
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == stream {
				return "reset", f.ErrCode.String()
			}
		case *http2.GoAwayFrame:
			p.Fatalf("goaway %s %s", f.ErrCode, f.DebugData())
		}
	}
}

func TestGrpcTimeoutEndsAStream(t *testing.T) {
	p := dial(t)
	start := time.Now()
	p.call(1, "/etcdserverpb.Watch/Watch", hpack.HeaderField{Name: "grpc-timeout", Value: "700m"})
	p.send(1, &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("wire")}}}, false)
	status, message := p.trailers(1)
	if took := time.Since(start); took < 600*time.Millisecond || took > 5*time.Second {
		t.Fatalf("deadline of 700 ms after %s", took)
	}
	// grpc-go resets the stream, or says DEADLINE_EXCEEDED when its handler was quicker.
	if status != "reset" && status != "4" {
		t.Fatalf("status %s %q", status, message)
	}
	p.call(3, "/etcdserverpb.KV/Range")
	p.send(3, &pb.RangeRequest{Key: []byte("wire")}, true)
	if status, message := p.trailers(3); status != "0" {
		t.Fatalf("the connection is dead: %s %q", status, message)
	}
}

func TestClientAPIVersionMustBeText(t *testing.T) {
	p := dial(t)
	p.call(1, "/etcdserverpb.KV/Range", hpack.HeaderField{Name: "client-api-version", Value: "3.6\xff"})
	p.send(1, &pb.RangeRequest{Key: []byte("wire")}, true)
	if status, message := p.trailers(1); status != "3" || message != "etcdserver: invalid client api version" {
		t.Fatalf("status %s %q", status, message)
	}
}

func TestTooManyPings(t *testing.T) {
	p := dial(t)
	for i := byte(0); i < 20; i++ {
		p.ok(p.framer.WritePing(false, [8]byte{i}))
	}
	if f, ok := p.next().(*http2.GoAwayFrame); !ok || f.ErrCode != http2.ErrCodeEnhanceYourCalm || string(f.DebugData()) != "too_many_pings" {
		t.Fatalf("20 pings without a stream: %v", f)
	}
}

func TestGarbageIsSurvived(t *testing.T) {
	for name, bytes := range map[string]string{
		"nonsense":          "\x16\x03\x01\x02\x00nonsense\r\n\r\n",
		"half a preface":    http2.ClientPreface[:12],
		"frame of 16 MiB":   http2.ClientPreface + "\xff\xff\xff\x00\x00\x00\x00\x00\x01",
		"data before start": http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x01\x00\x00\x00\x00\x00\x09x",
	} {
		t.Run(name, func(t *testing.T) {
			u, _ := url.Parse(target.Endpoint(t))
			conn, err := net.Dial("tcp", u.Host)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(conn, bytes)
			_ = conn.Close()
		})
	}
	truncated := dial(t)
	truncated.call(1, "/etcdserverpb.KV/Put")
	truncated.ok(truncated.framer.WriteData(1, true, []byte{0, 0, 0, 0, 9, 1, 2}))
	if status, message := truncated.trailers(1); status == "0" {
		t.Fatalf("a truncated message gives status %s %q", status, message)
	}
	bad := dial(t)
	bad.call(1, "/etcdserverpb.KV/Put")
	bad.ok(bad.framer.WriteData(1, true, []byte{0, 0, 0, 0, 2, 0xff, 0xff}))
	if status, message := bad.trailers(1); status != "13" && status != "3" {
		t.Fatalf("a malformed message gives status %s %q", status, message)
	}
	p := dial(t)
	p.call(1, "/etcdserverpb.KV/Range")
	p.send(1, &pb.RangeRequest{Key: []byte("wire")}, true)
	if status, message := p.trailers(1); status != "0" {
		t.Fatalf("afterwards: %s %q", status, message)
	}
}

func TestContentTypeMustBeGrpc(t *testing.T) {
	p := dial(t)
	p.call(1, "/etcdserverpb.KV/Range", hpack.HeaderField{Name: "grpc-encoding", Value: "no-such-compression"})
	p.ok(p.framer.WriteData(1, true, []byte{1, 0, 0, 0, 1, 7}))
	if status, message := p.trailers(1); status != "12" {
		t.Fatalf("unknown compression gives %s %q", status, message)
	}
}
