package clientv3

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"garboard.dev/tests/e2e/tools/target"
)

func TestPutGetDeleteRevisions(t *testing.T) {
	e := setup(t)
	before := e.revision()
	e.check("first put", e.put("k", "1"), before+1)
	e.check("second put", e.put("k", "2"), before+2)
	kv := e.get("k")
	e.check("kv", []int64{kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease}, []int64{before + 1, before + 2, 2, 0})
	e.check("value", string(kv.Value), "2")

	e.check("delete of nothing is no revision", e.delete("missing"), before+2)
	e.check("delete", e.delete("k"), before+3)
	e.check("gone", e.get("k") == nil, true)
	e.check("put after delete", e.put("k", "3"), before+4)
	kv = e.get("k")
	e.check("version restarts", []int64{kv.CreateRevision, kv.ModRevision, kv.Version}, []int64{before + 4, before + 4, 1})
}

func TestResponseHeader(t *testing.T) {
	e := setup(t)
	r, err := e.kv.Put(e.ctx, &pb.PutRequest{Key: e.key("k")})
	e.ok(err)
	if h := r.Header; h.ClusterId == 0 || h.MemberId == 0 || h.RaftTerm == 0 || h.Revision < 2 {
		t.Fatalf("header %v", h)
	}
	old := r.Header.Revision
	e.put("k", "2")
	past := e.list(func(r *pb.RangeRequest) { r.Revision = old })
	e.check("a read in the past carries the current revision", past.Header.Revision, old+1)
	e.check("and the old value", string(past.Kvs[0].Value), "")
}

func TestRangeEnds(t *testing.T) {
	e := setup(t)
	for _, name := range []string{"a", "ab", "b", "c"} {
		e.put(name, name)
	}
	ranges := func(key, end []byte) *pb.RangeResponse {
		r, err := e.kv.Range(e.ctx, &pb.RangeRequest{Key: key, RangeEnd: end})
		e.ok(err)
		return r
	}
	e.check("single", e.names(ranges(e.key("a"), nil).Kvs), "a")
	e.check("half-open", e.names(ranges(e.key("a"), e.key("c")).Kvs), "a ab b")
	e.check("empty interval", ranges(e.key("c"), e.key("a")).Count, 0)
	e.check("missing", ranges(e.key("x"), nil).Count, 0)
	from := ranges(e.key("b"), []byte{0})
	e.check("from key", e.names(from.Kvs[:2]), "b c")
	all, err := e.kv.Range(e.ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, KeysOnly: true})
	e.ok(err)
	if all.Count < from.Count+2 || all.Count != int64(len(all.Kvs)) {
		t.Fatalf("all keys: count %d of %d", all.Count, len(all.Kvs))
	}
}

func TestRangeLimitCountMore(t *testing.T) {
	e := setup(t)
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		e.put(name, name)
	}
	r := e.list(func(r *pb.RangeRequest) { r.Limit = 2 })
	e.check("limit", []any{e.names(r.Kvs), r.Count, r.More}, []any{"a b", 5, true})
	r = e.list(func(r *pb.RangeRequest) { r.Limit = 5 })
	e.check("limit equal to count", []any{len(r.Kvs), r.Count, r.More}, []any{5, 5, false})
	r = e.list(nil)
	e.check("no limit", []any{len(r.Kvs), r.Count, r.More}, []any{5, 5, false})
	r = e.list(func(r *pb.RangeRequest) { r.CountOnly = true })
	e.check("count only", []any{len(r.Kvs), r.Count, r.More}, []any{0, 5, false})
	r = e.list(func(r *pb.RangeRequest) { r.Limit = 2; r.Key = e.key("b") })
	e.check("next page", []any{e.names(r.Kvs), r.Count, r.More}, []any{"b c", 4, true})
}

func TestRangeKeysOnly(t *testing.T) {
	e := setup(t)
	lease := e.grant(100, 0)
	rev := e.putLease("k", "value", lease.ID)
	kv := e.list(func(r *pb.RangeRequest) { r.KeysOnly = true }).Kvs[0]
	e.check("value dropped", len(kv.Value), 0)
	e.check("rest kept", []int64{kv.ModRevision, kv.CreateRevision, kv.Version, kv.Lease}, []int64{rev, rev, 1, lease.ID})
}

func TestRangeSort(t *testing.T) {
	e := setup(t)
	e.put("a", "3") // create 1, mod 4 and version 2 once it is put again
	e.put("b", "2")
	e.put("c", "1")
	e.put("a", "9")
	sorted := func(target pb.RangeRequest_SortTarget, order pb.RangeRequest_SortOrder) string {
		return e.names(e.list(func(r *pb.RangeRequest) { r.SortTarget, r.SortOrder = target, order }).Kvs)
	}
	const asc, desc, none = pb.RangeRequest_ASCEND, pb.RangeRequest_DESCEND, pb.RangeRequest_NONE
	e.check("key none", sorted(pb.RangeRequest_KEY, none), "a b c")
	e.check("key asc", sorted(pb.RangeRequest_KEY, asc), "a b c")
	e.check("key desc", sorted(pb.RangeRequest_KEY, desc), "c b a")
	e.check("mod none sorts ascending", sorted(pb.RangeRequest_MOD, none), "b c a")
	e.check("mod asc", sorted(pb.RangeRequest_MOD, asc), "b c a")
	e.check("mod desc", sorted(pb.RangeRequest_MOD, desc), "a c b")
	e.check("create asc", sorted(pb.RangeRequest_CREATE, asc), "a b c")
	e.check("create desc", sorted(pb.RangeRequest_CREATE, desc), "c b a")
	e.check("value asc", sorted(pb.RangeRequest_VALUE, asc), "c b a")
	e.check("value desc", sorted(pb.RangeRequest_VALUE, desc), "a b c")
	if got := sorted(pb.RangeRequest_VERSION, desc); !strings.HasPrefix(got, "a ") {
		t.Fatalf("version desc: %s", got)
	}
	if got := sorted(pb.RangeRequest_VERSION, asc); !strings.HasSuffix(got, " a") {
		t.Fatalf("version asc: %s", got)
	}
	r := e.list(func(r *pb.RangeRequest) { r.SortTarget, r.SortOrder, r.Limit = pb.RangeRequest_KEY, desc, 2 })
	e.check("limit after sort", []any{e.names(r.Kvs), r.Count, r.More}, []any{"c b", 3, true})
	_, err := e.kv.Range(e.ctx, &pb.RangeRequest{Key: e.key("a"), SortOrder: 7})
	target.WantStatus(t, err, codes.InvalidArgument, "etcdserver: invalid sort option")
	_, err = e.kv.Range(e.ctx, &pb.RangeRequest{Key: e.key("a"), SortTarget: 9})
	target.WantStatus(t, err, codes.InvalidArgument, "etcdserver: invalid sort option")
}

func TestRangeRevisionFilters(t *testing.T) {
	e := setup(t)
	first := e.put("a", "")
	e.put("b", "")
	e.put("c", "")
	last := e.put("a", "again")
	filtered := func(change func(*pb.RangeRequest)) *pb.RangeResponse { return e.list(change) }
	r := filtered(func(r *pb.RangeRequest) { r.MinModRevision = first + 2 })
	e.check("min mod", []any{e.names(r.Kvs), r.Count}, []any{"a c", 3})
	r = filtered(func(r *pb.RangeRequest) { r.MaxModRevision = first + 1 })
	e.check("max mod", []any{e.names(r.Kvs), r.Count}, []any{"b", 3})
	r = filtered(func(r *pb.RangeRequest) { r.MinCreateRevision = first + 1 })
	e.check("min create", []any{e.names(r.Kvs), r.Count}, []any{"b c", 3})
	r = filtered(func(r *pb.RangeRequest) { r.MaxCreateRevision = first })
	e.check("max create", []any{e.names(r.Kvs), r.Count}, []any{"a", 3})
	r = filtered(func(r *pb.RangeRequest) { r.MinModRevision, r.MaxModRevision = last, last })
	e.check("both", []any{e.names(r.Kvs), r.Count}, []any{"a", 3})
	r = filtered(func(r *pb.RangeRequest) { r.MinCreateRevision, r.Limit = first+1, 1 })
	e.check("limit after filter", []any{e.names(r.Kvs), r.Count, r.More}, []any{"b", 3, true})
}

func TestRangeAtRevision(t *testing.T) {
	e := setup(t)
	r1 := e.put("k", "1")
	r2 := e.put("k", "2")
	r3 := e.delete("k")
	at := func(rev int64) *pb.RangeResponse { return e.list(func(r *pb.RangeRequest) { r.Revision = rev }) }
	e.check("before", at(r1-1).Count, 0)
	e.check("at 1", string(at(r1).Kvs[0].Value), "1")
	e.check("at 2", string(at(r2).Kvs[0].Value), "2")
	e.check("at delete", at(r3).Count, 0)
	e.check("negative is latest", at(-5).Count, 0)
	_, err := e.kv.Range(e.ctx, &pb.RangeRequest{Key: e.key("k"), Revision: r3 + 1000000})
	target.WantStatus(t, err, codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision")
	serial := e.list(func(r *pb.RangeRequest) { r.Serializable, r.Revision = true, r2 })
	e.check("serializable", string(serial.Kvs[0].Value), "2")
}

func TestPutOptions(t *testing.T) {
	e := setup(t)
	lease := e.grant(100, 0)
	put := func(r *pb.PutRequest) (*pb.PutResponse, error) {
		r.Key = e.key("k")
		return e.kv.Put(e.ctx, r)
	}
	r, err := put(&pb.PutRequest{Value: []byte("1"), PrevKv: true})
	e.ok(err)
	e.check("no previous", r.PrevKv == nil, true)
	r, err = put(&pb.PutRequest{Value: []byte("2"), PrevKv: true, Lease: lease.ID})
	e.ok(err)
	e.check("previous", []any{string(r.PrevKv.Value), r.PrevKv.Version, r.PrevKv.Lease}, []any{"1", 1, 0})
	r, err = put(&pb.PutRequest{Value: []byte("3")})
	e.ok(err)
	e.check("previous only when asked", r.PrevKv == nil, true)
	e.check("put without lease detaches", e.get("k").Lease, 0)

	_, err = put(&pb.PutRequest{Value: []byte("4"), Lease: lease.ID})
	e.ok(err)
	_, err = put(&pb.PutRequest{IgnoreValue: true})
	e.ok(err)
	kv := e.get("k")
	e.check("ignore value", []any{string(kv.Value), kv.Lease, kv.Version}, []any{"4", 0, 5})
	_, err = put(&pb.PutRequest{Value: []byte("6"), Lease: lease.ID})
	e.ok(err)
	_, err = put(&pb.PutRequest{Value: []byte("7"), IgnoreLease: true})
	e.ok(err)
	kv = e.get("k")
	e.check("ignore lease", []any{string(kv.Value), kv.Lease}, []any{"7", lease.ID})
	_, err = put(&pb.PutRequest{IgnoreValue: true, IgnoreLease: true})
	e.ok(err)
	kv = e.get("k")
	e.check("ignore both", []any{string(kv.Value), kv.Lease, kv.Version}, []any{"7", lease.ID, 8})
}

func TestPutErrors(t *testing.T) {
	e := setup(t)
	before := e.revision()
	cases := []struct {
		name    string
		request pb.PutRequest
		code    codes.Code
		text    string
	}{
		{"empty key", pb.PutRequest{}, codes.InvalidArgument, "etcdserver: key is not provided"},
		{"value with ignore_value", pb.PutRequest{Key: e.key("k"), Value: []byte("v"), IgnoreValue: true}, codes.InvalidArgument, "etcdserver: value is provided"},
		{"lease with ignore_lease", pb.PutRequest{Key: e.key("k"), Lease: 1, IgnoreLease: true}, codes.InvalidArgument, "etcdserver: lease is provided"},
		{"ignore_value of nothing", pb.PutRequest{Key: e.key("k"), IgnoreValue: true}, codes.InvalidArgument, "etcdserver: key not found"},
		{"ignore_lease of nothing", pb.PutRequest{Key: e.key("k"), IgnoreLease: true}, codes.InvalidArgument, "etcdserver: key not found"},
		{"unknown lease", pb.PutRequest{Key: e.key("k"), Lease: 987654321}, codes.NotFound, "etcdserver: requested lease not found"},
	}
	for _, c := range cases {
		_, err := e.kv.Put(e.ctx, &c.request)
		t.Run(c.name, func(t *testing.T) { target.WantStatus(t, err, c.code, c.text) })
	}
	_, err := e.kv.Range(e.ctx, &pb.RangeRequest{})
	target.WantStatus(t, err, codes.InvalidArgument, "etcdserver: key is not provided")
	_, err = e.kv.DeleteRange(e.ctx, &pb.DeleteRangeRequest{})
	target.WantStatus(t, err, codes.InvalidArgument, "etcdserver: key is not provided")
	e.check("no revision spent", e.revision(), before)
}

func TestDeleteRange(t *testing.T) {
	e := setup(t)
	for _, name := range []string{"a", "b", "c", "d"} {
		e.put(name, name)
	}
	r, err := e.kv.DeleteRange(e.ctx, &pb.DeleteRangeRequest{Key: e.key("a"), RangeEnd: e.key("c"), PrevKv: true})
	e.ok(err)
	e.check("deleted", []any{r.Deleted, e.names(r.PrevKvs), string(r.PrevKvs[1].Value)}, []any{2, "a b", "b"})
	r, err = e.kv.DeleteRange(e.ctx, &pb.DeleteRangeRequest{Key: e.key("c")})
	e.ok(err)
	e.check("single", []any{r.Deleted, len(r.PrevKvs)}, []any{1, 0})
	before := e.revision()
	r, err = e.kv.DeleteRange(e.ctx, &pb.DeleteRangeRequest{Key: e.key(""), RangeEnd: e.end()})
	e.ok(err)
	e.check("one revision for a range", []any{r.Deleted, r.Header.Revision}, []any{1, before + 1})
	r, err = e.kv.DeleteRange(e.ctx, &pb.DeleteRangeRequest{Key: e.key(""), RangeEnd: e.end(), PrevKv: true})
	e.ok(err)
	e.check("again", []any{r.Deleted, r.Header.Revision, len(r.PrevKvs)}, []any{0, before + 1, 0})
	e.put("z", "")
	r, err = e.kv.DeleteRange(e.ctx, &pb.DeleteRangeRequest{Key: e.key("z"), RangeEnd: e.key("a")})
	e.ok(err)
	e.check("empty interval", r.Deleted, 0)
}

func TestBinaryKeysAndValues(t *testing.T) {
	e := setup(t)
	name := "\x00\xff\xfe/\x00"
	value := string([]byte{0, 1, 2, 255, 254, 0})
	e.put(name, value)
	e.put(name+"\x00", "")
	e.check("value", string(e.get(name).Value), value)
	e.check("order", len(e.list(nil).Kvs), 2)
	e.check("shorter first", string(e.list(nil).Kvs[0].Key), string(e.key(name)))
}

func TestCompact(t *testing.T) {
	e := setup(t)
	r1 := e.put("k", "1")
	r2 := e.put("k", "2")
	r3 := e.put("k", "3")
	e.put("dead", "1")
	e.delete("dead")
	_, err := e.client.Compact(e.ctx, r2)
	e.ok(err)
	at := func(rev int64) (*pb.RangeResponse, error) {
		return e.kv.Range(e.ctx, &pb.RangeRequest{Key: e.key("k"), Revision: rev})
	}
	_, err = at(r1)
	target.WantStatus(t, err, codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted")
	r, err := at(r2)
	e.ok(err)
	e.check("the compacted revision itself is readable", string(r.Kvs[0].Value), "2")
	r, err = at(r3)
	e.ok(err)
	e.check("later", string(r.Kvs[0].Value), "3")

	for _, rev := range []int64{r2, r1, 0, -1} {
		_, err = e.kv.Compact(e.ctx, &pb.CompactionRequest{Revision: rev})
		target.WantStatus(t, err, codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted")
	}
	_, err = e.kv.Compact(e.ctx, &pb.CompactionRequest{Revision: e.revision() + 1})
	target.WantStatus(t, err, codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision")

	current := e.revision()
	c, err := e.kv.Compact(e.ctx, &pb.CompactionRequest{Revision: current, Physical: true})
	e.ok(err)
	e.check("compaction is no revision", c.Header.Revision, current)
	kv := e.get("k")
	e.check("live value survives", []any{string(kv.Value), kv.CreateRevision, kv.ModRevision, kv.Version}, []any{"3", r1, r3, 3})
	e.check("deleted stays deleted", e.get("dead") == nil, true)
	e.check("and can come back", e.put("dead", "2"), current+1)
	e.check("as new", e.get("dead").Version, 1)
}

func TestCompactPhysicalLarge(t *testing.T) {
	e := setup(t)
	for i := 0; i < 3000; i++ {
		e.put("k", strings.Repeat("x", 200))
	}
	current := e.revision()
	_, err := e.client.Compact(e.ctx, current, clientv3.WithCompactPhysical())
	e.ok(err)
	e.check("version", e.get("k").Version, 3000)
	_, err = e.client.Get(e.ctx, string(e.key("k")), clientv3.WithRev(current-1))
	e.check("clientv3 knows the error", errors.Is(err, rpctypes.ErrCompacted), true)
}

func TestPaginatedListAtOneRevision(t *testing.T) {
	e := setup(t)
	const total = 1037
	for i := 0; i < total; i++ {
		e.put(pageKey(i), "v")
	}
	rev := e.revision()
	seen, from := 0, e.key("")
	for {
		r := e.list(func(r *pb.RangeRequest) { r.Key, r.Limit, r.Revision = from, 100, rev })
		e.check("count of the rest", r.Count, total-seen)
		for _, kv := range r.Kvs {
			e.check("key", string(kv.Key[len(e.prefix):]), pageKey(seen))
			seen++
		}
		// Writes between the pages must not show.
		e.put(pageKey(seen)+"-new", "v")
		e.delete(pageKey(seen + 1))
		if !r.More {
			break
		}
		from = append(append([]byte{}, r.Kvs[len(r.Kvs)-1].Key...), 0)
	}
	e.check("all", seen, total)
}

func pageKey(i int) string {
	return string([]byte{'p', byte('0' + i/1000), byte('0' + i/100%10), byte('0' + i/10%10), byte('0' + i%10)})
}
