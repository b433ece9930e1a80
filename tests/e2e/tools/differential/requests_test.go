package differential

import (
	"fmt"
	"math/rand"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// generator makes a random sequence of requests; the same seed makes the same one.
type generator struct {
	*rand.Rand
	leases    []int64
	keepsKeys bool // the transaction being made deletes nothing
}

// sequence is n random steps, with what has to be the same after them.
func sequence(seed int64, n int) (steps []fmt.Stringer) {
	g := &generator{Rand: rand.New(rand.NewSource(seed))}
	for len(steps) < n {
		steps = append(steps, g.step()...)
	}
	for slot := range slots {
		steps = append(steps, &watchers{slot: slot})
	}
	return append(steps, lowered(pb.AlarmType_NOSPACE), lowered(pb.AlarmType_CORRUPT), history{}, &pb.HashKVRequest{},
		&pb.CompactionRequest{Revision: atHead, Physical: true}, &pb.HashKVRequest{})
}

func one(request fmt.Stringer) []fmt.Stringer { return []fmt.Stringer{request} }

func (g *generator) step() []fmt.Stringer {
	switch n := g.Intn(200); {
	case n < 58:
		return one(g.putRequest())
	case n < 98:
		return one(g.rangeRequest())
	case n < 118:
		return one(g.deleteRequest())
	case n < 168:
		return one(g.txnRequest(0))
	case n < 184:
		return one(g.leaseRequest())
	case n < 186:
		// What compaction takes away is compared before.
		return []fmt.Stringer{history{}, &pb.CompactionRequest{Revision: g.anyRevision(1), Physical: g.oneIn(2)}}
	case n < 192:
		r := &pb.HashKVRequest{}
		if g.oneIn(3) {
			r.Revision = g.anyRevision(2)
		}
		return one(r)
	case n < 194:
		return one(g.watchers())
	case n < 195:
		return g.alarm()
	case n < 196 && g.oneIn(10):
		return one(&pb.DefragmentRequest{})
	default:
		return one(&pb.MemberListRequest{Linearizable: g.oneIn(2)})
	}
}

func (g *generator) oneIn(n int) bool { return g.Intn(n) == 0 }

// A small key space, so that requests meet.
func (g *generator) key() []byte {
	return []byte(fmt.Sprintf("%c%s", 'a'+rune(g.Intn(4)), strings.Repeat("x", g.Intn(6))))
}

func (g *generator) value() []byte {
	return []byte(strings.Repeat(fmt.Sprint(g.Intn(10)), g.Intn(60)))
}

func (g *generator) bounds() (key, end []byte) {
	switch g.Intn(10) {
	case 0:
		return []byte{0}, []byte{0}
	case 1:
		return g.key(), []byte{0}
	case 2, 3, 4:
		return g.key(), g.key()
	default:
		return g.key(), nil
	}
}

// anyRevision is one that there is, or up to some too old or too new.
func (g *generator) anyRevision(beyond int64) int64 {
	switch g.Intn(4) {
	case 0:
		return atHead + g.Int63n(2*beyond+1) - beyond
	case 1:
		return atCompacted + g.Int63n(2*beyond+1) - beyond
	default:
		return between + g.Int63n(1001)
	}
}

func (g *generator) share() int64 { return share + g.Int63n(1001) }

func (g *generator) someLease() int64 {
	if len(g.leases) == 0 || g.oneIn(8) {
		return 999
	}
	return g.leases[g.Intn(len(g.leases))]
}

func (g *generator) putRequest() *pb.PutRequest {
	r := &pb.PutRequest{Key: g.key(), Value: g.value(), PrevKv: g.oneIn(3)}
	if g.oneIn(4) {
		r.Lease = g.someLease()
	}
	if g.oneIn(10) {
		r.IgnoreValue = true
		if !g.oneIn(8) {
			r.Value = nil
		}
	}
	if g.oneIn(10) {
		r.IgnoreLease = true
		if !g.oneIn(8) {
			r.Lease = 0
		}
	}
	return r
}

func (g *generator) rangeRequest() *pb.RangeRequest {
	r := &pb.RangeRequest{KeysOnly: g.oneIn(6), CountOnly: g.oneIn(8), Serializable: g.oneIn(4)}
	r.Key, r.RangeEnd = g.bounds()
	if g.oneIn(3) {
		r.Limit = g.Int63n(6)
	}
	if g.oneIn(3) {
		r.Revision = g.anyRevision(3)
	}
	if g.oneIn(4) {
		r.SortOrder = pb.RangeRequest_SortOrder(g.Intn(4))
		r.SortTarget = pb.RangeRequest_SortTarget(g.Intn(5))
		if r.SortTarget != pb.RangeRequest_KEY {
			r.Limit = 0 // ties have no order, so that with a limit the keys differ
		}
	}
	for _, filter := range []*int64{&r.MinModRevision, &r.MaxModRevision, &r.MinCreateRevision, &r.MaxCreateRevision} {
		if g.oneIn(6) {
			*filter = g.share()
		}
	}
	return r
}

func (g *generator) deleteRequest() *pb.DeleteRangeRequest {
	r := &pb.DeleteRangeRequest{PrevKv: g.oneIn(2)}
	r.Key, r.RangeEnd = g.bounds()
	if len(r.RangeEnd) == 1 && r.RangeEnd[0] == 0 && !g.oneIn(6) {
		r.RangeEnd = nil
	}
	return r
}

func (g *generator) compareRequest() *pb.Compare {
	c := &pb.Compare{Result: pb.Compare_CompareResult(g.Intn(4))}
	c.Key, c.RangeEnd = g.bounds()
	switch g.Intn(5) {
	case 0:
		c.Target, c.TargetUnion = pb.Compare_VERSION, &pb.Compare_Version{Version: g.Int63n(4)}
	case 1:
		c.Target, c.TargetUnion = pb.Compare_CREATE, &pb.Compare_CreateRevision{CreateRevision: g.share()}
	case 2:
		c.Target, c.TargetUnion = pb.Compare_MOD, &pb.Compare_ModRevision{ModRevision: g.share()}
	case 3:
		c.Target, c.TargetUnion = pb.Compare_VALUE, &pb.Compare_Value{Value: g.value()}
	default:
		c.Target, c.TargetUnion = pb.Compare_LEASE, &pb.Compare_Lease{Lease: g.Int63n(3)}
	}
	return c
}

func (g *generator) txnRequest(depth int) *pb.TxnRequest {
	if depth == 0 {
		g.keepsKeys = g.oneIn(3)
	}
	r := &pb.TxnRequest{}
	for i := g.Intn(3); i > 0; i-- {
		r.Compare = append(r.Compare, g.compareRequest())
	}
	ops := func() (out []*pb.RequestOp) {
		for i := g.Intn(4); i > 0; i-- {
			out = append(out, g.op(depth))
		}
		return out
	}
	r.Success, r.Failure = ops(), ops()
	return r
}

func (g *generator) op(depth int) *pb.RequestOp {
	switch n := g.Intn(10); {
	case n < 4:
		r := g.putRequest()
		if !g.keepsKeys { // etcd 3.6 checks ignore_* on the state before the transaction, and panics when a delete in it took the key
			r.IgnoreValue, r.IgnoreLease = false, false
		}
		return opOf(r)
	case n < 6:
		r := g.rangeRequest()
		r.SortTarget = pb.RangeRequest_KEY // ties of other targets have no order
		return opOf(r)
	case !g.keepsKeys && (n < 8 || depth == 2):
		return opOf(g.deleteRequest())
	case depth == 2:
		return opOf(&pb.RangeRequest{Key: g.key()})
	default:
		return opOf(g.txnRequest(depth + 1))
	}
}

func (g *generator) leaseRequest() fmt.Stringer {
	switch n := g.Intn(12); {
	case n < 5:
		r := &pb.LeaseGrantRequest{ID: g.Int63n(40) + 1, TTL: 3600}
		g.leases = append(g.leases, r.ID)
		return r
	case n < 7:
		return &pb.LeaseRevokeRequest{ID: g.someLease()}
	case n < 8:
		return &pb.LeaseKeepAliveRequest{ID: g.someLease()}
	case n < 9:
		return &pb.LeaseLeasesRequest{}
	default:
		return &pb.LeaseTimeToLiveRequest{ID: g.someLease(), Keys: g.oneIn(2)}
	}
}

func lowered(alarm pb.AlarmType) *pb.AlarmRequest {
	return &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: alarm, MemberID: 5}
}

// alarm raises one for some requests, the last of which asks what is raised.
func (g *generator) alarm() []fmt.Stringer {
	kind := pb.AlarmType(1 + g.Intn(2))
	steps := one(&pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: kind, MemberID: 5})
	for i := g.Intn(8); i > 0; i-- {
		switch g.Intn(4) {
		case 0:
			steps = append(steps, g.putRequest())
		case 1:
			steps = append(steps, g.txnRequest(0))
		case 2:
			steps = append(steps, g.leaseRequest())
		default:
			steps = append(steps, g.deleteRequest(), g.rangeRequest())
		}
	}
	return append(steps, &pb.AlarmRequest{Alarm: pb.AlarmType(g.Intn(3))}, lowered(kind))
}

// slots is how many streams of random watchers there may be at a time.
const slots = 3

func (g *generator) watchers() *watchers {
	w := &watchers{slot: g.Intn(slots)}
	for i := g.Intn(6); i > 0; i-- {
		c := &pb.WatchCreateRequest{PrevKv: g.oneIn(2), Fragment: g.oneIn(3)}
		c.Key, c.RangeEnd = g.bounds()
		switch g.Intn(6) {
		case 0, 1:
			c.StartRevision = atHead + 1 + g.Int63n(3)
		case 2, 3, 4:
			c.StartRevision = between + g.Int63n(1001)
		}
		for _, filter := range []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT, pb.WatchCreateRequest_NODELETE} {
			if g.oneIn(5) {
				c.Filters = append(c.Filters, filter)
			}
		}
		w.Creates = append(w.Creates, c)
	}
	return w
}
