package differential

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"slices"
	"sort"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// side is one of the two servers.
type side struct {
	conn        *grpc.ClientConn
	kv          pb.KVClient
	lease       pb.LeaseClient
	watch       pb.WatchClient
	cluster     pb.ClusterClient
	maintenance pb.MaintenanceClient
	auth        pb.AuthClient
}

func newSide(conn *grpc.ClientConn) *side {
	return &side{
		conn, pb.NewKVClient(conn), pb.NewLeaseClient(conn), pb.NewWatchClient(conn), pb.NewClusterClient(conn),
		pb.NewMaintenanceClient(conn), pb.NewAuthClient(conn),
	}
}

// self is the id that the flags of startServer give to the member.
const self = 1767428333833140196

type message interface {
	String() string
	GetHeader() *pb.ResponseHeader
}

// reply is what a side has answered, as text without what may differ.
type reply struct {
	text     string
	err      error
	revision int64 // of the header, 0 without one
}

// ask sends a request and waits for the answer.
func (s *side) ask(ctx context.Context, request fmt.Stringer) reply {
	answer, err := s.send(ctx, request)
	if err != nil {
		return reply{text: failure(err), err: err}
	}
	unordered(request, answer)
	out := reply{}
	if header := answer.GetHeader(); header != nil {
		header.RaftTerm = 0
		out.revision = header.Revision
	}
	out.text = answer.String()
	return out
}

func failure(err error) string {
	return fmt.Sprintf("%s %q", status.Code(err), status.Convert(err).Message())
}

// unordered takes out of an answer what is free: the order of ties, the seconds that are left.
func unordered(request fmt.Stringer, answer message) {
	switch got := answer.(type) {
	case *pb.RangeResponse:
		if r, ok := request.(*pb.RangeRequest); ok {
			orderTies(r.SortTarget, got.Kvs)
		}
	case *pb.LeaseTimeToLiveResponse:
		got.TTL = min(got.TTL, 1)
		slices.SortFunc(got.Keys, slices.Compare)
	case *pb.LeaseLeasesResponse:
		sort.Slice(got.Leases, func(i, j int) bool { return got.Leases[i].ID < got.Leases[j].ID })
	case *pb.AlarmResponse:
		sort.Slice(got.Alarms, func(i, j int) bool { return got.Alarms[i].String() < got.Alarms[j].String() })
	case *pb.HashResponse:
		got.Hash = 0 // of all bytes in the database
	case *pb.StatusResponse:
		slices.Sort(got.Errors)
		got.StorageVersion = "" // etcd finds it out some seconds after its start
		got.Version = semantic.ReplaceAllString(got.Version, "3")
		// What is counted in a format's own way: only whether it is there.
		for _, n := range []*int64{&got.DbSize, &got.DbSizeInUse} {
			*n = min(*n, 1)
		}
		got.RaftTerm, got.RaftIndex, got.RaftAppliedIndex = min(got.RaftTerm, 1), min(got.RaftIndex, 1), min(got.RaftAppliedIndex, 1)
	}
}

var semantic = regexp.MustCompile(`^3\.[67]\.\d+$`)

// orderTies puts keys that sort alike in the order of the keys.
func orderTies(target pb.RangeRequest_SortTarget, kvs []*mvccpb.KeyValue) {
	for from := 0; from < len(kvs); {
		to := from + 1
		for to < len(kvs) && sortsAs(target, kvs[to]) == sortsAs(target, kvs[from]) {
			to++
		}
		slices.SortFunc(kvs[from:to], func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) })
		from = to
	}
}

func sortsAs(target pb.RangeRequest_SortTarget, kv *mvccpb.KeyValue) string {
	switch target {
	case pb.RangeRequest_VERSION:
		return fmt.Sprint(kv.Version)
	case pb.RangeRequest_CREATE:
		return fmt.Sprint(kv.CreateRevision)
	case pb.RangeRequest_MOD:
		return fmt.Sprint(kv.ModRevision)
	case pb.RangeRequest_VALUE:
		return string(kv.Value)
	default:
		return string(kv.Key)
	}
}

// send sends any request that has one answer.
func (s *side) send(ctx context.Context, request fmt.Stringer) (message, error) {
	switch r := request.(type) {
	case *pb.PutRequest:
		return s.kv.Put(ctx, r)
	case *pb.RangeRequest:
		return s.kv.Range(ctx, r)
	case *pb.DeleteRangeRequest:
		return s.kv.DeleteRange(ctx, r)
	case *pb.TxnRequest:
		return s.kv.Txn(ctx, r)
	case *pb.CompactionRequest:
		return s.kv.Compact(ctx, r)
	case *pb.LeaseGrantRequest:
		return s.lease.LeaseGrant(ctx, r)
	case *pb.LeaseRevokeRequest:
		return s.lease.LeaseRevoke(ctx, r)
	case *pb.LeaseTimeToLiveRequest:
		return s.lease.LeaseTimeToLive(ctx, r)
	case *pb.LeaseLeasesRequest:
		return s.lease.LeaseLeases(ctx, r)
	case *pb.LeaseKeepAliveRequest:
		return s.keepAlive(ctx, r)
	case *pb.MemberListRequest:
		return s.cluster.MemberList(ctx, r)
	case *pb.MemberAddRequest:
		return s.cluster.MemberAdd(ctx, r)
	case *pb.MemberRemoveRequest:
		return s.cluster.MemberRemove(ctx, r)
	case *pb.MemberUpdateRequest:
		return s.cluster.MemberUpdate(ctx, r)
	case *pb.MemberPromoteRequest:
		return s.cluster.MemberPromote(ctx, r)
	default:
		return s.maintain(ctx, request)
	}
}

func (s *side) maintain(ctx context.Context, request fmt.Stringer) (message, error) {
	switch r := request.(type) {
	case *pb.AlarmRequest:
		return s.maintenance.Alarm(ctx, r)
	case *pb.StatusRequest:
		return s.maintenance.Status(ctx, r)
	case *pb.DefragmentRequest:
		return s.maintenance.Defragment(ctx, r)
	case *pb.HashRequest:
		return s.maintenance.Hash(ctx, r)
	case *pb.HashKVRequest:
		return s.maintenance.HashKV(ctx, r)
	case *pb.MoveLeaderRequest:
		return s.maintenance.MoveLeader(ctx, r)
	case *pb.DowngradeRequest:
		return s.maintenance.Downgrade(ctx, r)
	case *pb.AuthStatusRequest:
		return s.auth.AuthStatus(ctx, r)
	case *pb.AuthenticateRequest:
		return s.auth.Authenticate(ctx, r)
	case interface {
		call(context.Context, *side) (message, error)
	}:
		return r.call(ctx, s)
	default:
		return s.administer(ctx, request)
	}
}

func (s *side) administer(ctx context.Context, request fmt.Stringer) (message, error) {
	switch r := request.(type) {
	case *pb.AuthEnableRequest:
		return s.auth.AuthEnable(ctx, r)
	case *pb.AuthDisableRequest:
		return s.auth.AuthDisable(ctx, r)
	case *pb.AuthUserAddRequest:
		return s.auth.UserAdd(ctx, r)
	case *pb.AuthUserGetRequest:
		return s.auth.UserGet(ctx, r)
	case *pb.AuthUserRevokeRoleRequest:
		return s.auth.UserRevokeRole(ctx, r)
	case *pb.AuthRoleAddRequest:
		return s.auth.RoleAdd(ctx, r)
	case *pb.AuthRoleGetRequest:
		return s.auth.RoleGet(ctx, r)
	case *pb.AuthRoleGrantPermissionRequest:
		return s.auth.RoleGrantPermission(ctx, r)
	case *pb.AuthRoleRevokePermissionRequest:
		return s.auth.RoleRevokePermission(ctx, r)
	default:
		return nil, fmt.Errorf("a request of type %T", request)
	}
}

func (s *side) keepAlive(ctx context.Context, request *pb.LeaseKeepAliveRequest) (message, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.lease.LeaseKeepAlive(ctx)
	if err != nil {
		return nil, err
	}
	if err := stream.Send(request); err != nil {
		return nil, err
	}
	return stream.Recv()
}
