package differential

import (
	"context"
	"math/rand"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// raw passes bytes that may be no message.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)       { return *v.(*[]byte), nil }
func (raw) Unmarshal(bytes []byte, v any) error { *v.(*[]byte) = bytes; return nil }
func (raw) Name() string                        { return "proto" }

// bytesTo sends bytes to a method. What a library says of bytes that it cannot read is its own.
func (s *side) bytesTo(ctx context.Context, method string, bytes []byte) (answer []byte, failed string) {
	err := s.conn.Invoke(ctx, "/etcdserverpb."+method, &bytes, &answer, grpc.ForceCodec(raw{}))
	if code := status.Code(err); code == codes.Internal || code == codes.Unimplemented {
		return nil, code.String()
	}
	if err != nil {
		return nil, failure(err)
	}
	return answer, ""
}

// TestMalformed sends the same nonsense to every unary method: the same code, and both live on.
func TestMalformed(t *testing.T) {
	p := startPair(t, fast)
	defer p.stop()
	methods := []string{
		"KV/Range", "KV/Put", "KV/DeleteRange", "KV/Txn", "KV/Compact", "Lease/LeaseGrant", "Lease/LeaseRevoke", "Lease/LeaseTimeToLive", "Lease/LeaseLeases",
		"Cluster/MemberList", "Maintenance/Alarm", "Maintenance/HashKV", "Maintenance/MoveLeader", "Auth/Authenticate", "KV/NoSuchMethod", "NoSuchService/Put",
	}
	for _, method := range methods {
		for _, bytes := range [][]byte{{0xff}, {0x0a, 0xff}, {0x0a, 0x05, 'a'}, {0x0f, 0x01}, {0x00, 0x00}, []byte(strings.Repeat("\xff", 40))} {
			ours, reference := both(p, func(s *side) string {
				_, failed := s.bytesTo(t.Context(), method, bytes)
				return failed
			})
			if ours != reference {
				t.Errorf("%s with % x: %s, want %s", method, bytes, ours, reference)
			}
		}
	}
}

// encoded is a request as bytes, with the method that takes it and a new answer of it.
type encoded struct {
	method string
	bytes  []byte
	answer func() decodable
}

type decodable interface {
	message
	Unmarshal([]byte) error
}

// sent gives the answer as text.
func (e encoded) sent(ctx context.Context, s *side, bytes []byte) string {
	got, failed := s.bytesTo(ctx, e.method, bytes)
	if failed != "" {
		return failed
	}
	answer := e.answer()
	if err := answer.Unmarshal(got); err != nil {
		return err.Error()
	}
	answer.GetHeader().RaftTerm = 0
	return answer.String()
}

// encodable is a random request. What etcd does not survive when its bytes change is left out.
func (g *generator) encodable() (out encoded, err error) {
	switch g.Intn(8) {
	case 0, 1:
		out.method, out.answer = "KV/Put", func() decodable { return &pb.PutResponse{} }
		out.bytes, err = g.putRequest().Marshal()
	case 2, 3, 4:
		out.method, out.answer = "KV/Range", func() decodable { return &pb.RangeResponse{} }
		out.bytes, err = revisions{9, 3}.resolve(g.rangeRequest()).(*pb.RangeRequest).Marshal()
	case 5:
		out.method, out.answer = "KV/DeleteRange", func() decodable { return &pb.DeleteRangeResponse{} }
		out.bytes, err = g.deleteRequest().Marshal()
	case 6:
		out.method, out.answer = "KV/Txn", func() decodable { return &pb.TxnResponse{} }
		txn := then(&pb.RangeRequest{Key: g.key()}, then(&pb.RangeRequest{Key: g.key()}))
		txn.Compare = []*pb.Compare{g.compareRequest(), g.compareRequest()}
		out.bytes, err = revisions{9, 3}.resolve(txn).(*pb.TxnRequest).Marshal()
	default:
		out.method, out.answer = "Lease/LeaseTimeToLive", func() decodable { return &pb.LeaseTimeToLiveResponse{} }
		out.bytes, err = (&pb.LeaseTimeToLiveRequest{ID: g.someLease(), Keys: g.oneIn(2)}).Marshal()
	}
	return out, err
}

// mutate changes, inserts, repeats and cuts off bytes.
func (g *generator) mutate(bytes []byte) []byte {
	out := append([]byte{}, bytes...)
	for i := 1 + g.Intn(2); i > 0 && len(out) > 0; i-- {
		at := g.Intn(len(out))
		switch g.Intn(5) {
		case 0:
			out[at] ^= 1 << g.Intn(8)
		case 1:
			out[at] = byte(g.Intn(256))
		case 2:
			out = append(out[:at], append([]byte{byte(g.Intn(256))}, out[at:]...)...)
		case 3:
			out = append(out, out[at:]...)
		default:
			out = out[:at]
		}
	}
	return out
}

// odd is what etcd reads in a way of its own and no client sends: a group, also one that never ends; an end of a range that is
// there and empty, which means the end of all keys.
func odd(bytes []byte) bool {
	for len(bytes) > 0 {
		_, kind, n := protowire.ConsumeTag(bytes)
		if kind == protowire.StartGroupType || kind == protowire.EndGroupType {
			return true
		}
		if n < 0 {
			return false
		}
		field, m := protowire.ConsumeBytes(bytes[n:])
		if kind != protowire.BytesType {
			m = protowire.ConsumeFieldValue(1, kind, bytes[n:])
		}
		if m < 0 {
			return false
		}
		if kind == protowire.BytesType && (len(field) == 0 || odd(field)) {
			return true
		}
		bytes = bytes[n+m:]
	}
	return false
}

// tied is a Range whose answer has no order of its own.
func tied(method string, bytes []byte) bool {
	r := &pb.RangeRequest{}
	return method == "KV/Range" && r.Unmarshal(bytes) == nil && r.SortTarget != pb.RangeRequest_KEY
}

// TestMutated sends requests some bytes of which are others: both read the same in them, or nothing.
func TestMutated(t *testing.T) {
	p := startPair(t, fast)
	defer p.stop()
	g := &generator{Rand: rand.New(rand.NewSource(seed(t)))}
	read := 0
	for range 3000 {
		request, err := g.encodable()
		if err != nil {
			t.Fatal(err)
		}
		bytes := g.mutate(request.bytes)
		if odd(bytes) || tied(request.method, bytes) {
			continue
		}
		got, want := both(p, func(s *side) string { return request.sent(t.Context(), s, bytes) })
		if got != want {
			t.Fatalf("%s with %q\n got: %.600s\nwant: %.600s", request.method, bytes, got, want)
		}
		if want != codes.Internal.String() {
			read++
		}
	}
	if read < 300 || read > 2500 {
		t.Errorf("%d of 3000 requests could be read", read)
	}
}
