package differential

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// row is an error of etcd's table: the requests the last of which gets it, or the reason why one member never shows it.
type row struct {
	name    string
	err     error
	by      []fmt.Stringer
	after   fmt.Stringer // undoes what the requests have done
	unbuilt bool         // ours refuses the request by name
	reason  string
}

func by(requests ...fmt.Stringer) []fmt.Stringer { return requests }

func raise(kind pb.AlarmType) *pb.AlarmRequest {
	return &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: kind, MemberID: 5}
}

const several, never = "needs several members", "etcd's server never says it"

var rows = []row{
	{name: "EmptyKey", err: rpctypes.ErrGRPCEmptyKey, by: by(get("", ""))},
	{name: "KeyNotFound", err: rpctypes.ErrGRPCKeyNotFound, by: by(changed(put("rows/none", ""), func(r *pb.PutRequest) { r.IgnoreValue = true }))},
	{name: "ValueProvided", err: rpctypes.ErrGRPCValueProvided, by: by(changed(put("rows/a", "v"), func(r *pb.PutRequest) { r.IgnoreValue = true }))},
	{name: "LeaseProvided", err: rpctypes.ErrGRPCLeaseProvided, by: by(changed(put("rows/a", "v"), func(r *pb.PutRequest) { r.IgnoreLease, r.Lease = true, 7 }))},
	{name: "TooManyOps", err: rpctypes.ErrGRPCTooManyOps, by: by(many(129))},
	{name: "DuplicateKey", err: rpctypes.ErrGRPCDuplicateKey, by: by(then(put("rows/a", "1"), put("rows/a", "2")))},
	{name: "InvalidClientAPIVersion", err: rpctypes.ErrGRPCInvalidClientAPIVersion, by: by(wireCall{path: rangePath, header: "client-api-version", value: "3.6\xff"})},
	{name: "InvalidSortOption", err: rpctypes.ErrGRPCInvalidSortOption, by: by(&pb.RangeRequest{Key: []byte("a"), SortOrder: 9})},
	{name: "Compacted", err: rpctypes.ErrGRPCCompacted, by: by(put("rows/a", "1"), put("rows/a", "2"), put("rows/a", "3"), &pb.CompactionRequest{Revision: 3}, &pb.RangeRequest{Key: []byte("rows/a"), Revision: 2})},
	{name: "FutureRev", err: rpctypes.ErrGRPCFutureRev, by: by(&pb.RangeRequest{Key: []byte("a"), Revision: 1 << 40})},
	{name: "NoSpace", err: rpctypes.ErrGRPCNoSpace, by: by(raise(pb.AlarmType_NOSPACE), put("rows/a", "v")), after: lowered(pb.AlarmType_NOSPACE)},
	{name: "LeaseNotFound", err: rpctypes.ErrGRPCLeaseNotFound, by: by(&pb.LeaseRevokeRequest{ID: 77})},
	{name: "LeaseExist", err: rpctypes.ErrGRPCLeaseExist, by: by(&pb.LeaseGrantRequest{ID: 8, TTL: 60}, &pb.LeaseGrantRequest{ID: 8, TTL: 60})},
	{name: "LeaseTTLTooLarge", err: rpctypes.ErrGRPCLeaseTTLTooLarge, by: by(&pb.LeaseGrantRequest{ID: 9, TTL: 9_000_000_001})},
	{name: "WatchCanceled", err: rpctypes.ErrGRPCWatchCanceled, reason: "said to a client that has gone"},

	{name: "MemberExist", err: rpctypes.ErrGRPCMemberExist, reason: "the id of a new member is a hash of the time"},
	{name: "PeerURLExist", err: rpctypes.ErrGRPCPeerURLExist, by: by(&pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:0"}, IsLearner: true})},
	{name: "MemberNotEnoughStarted", err: rpctypes.ErrGRPCMemberNotEnoughStarted, by: by(&pb.MemberRemoveRequest{ID: self})},
	{name: "MemberBadURLs", err: rpctypes.ErrGRPCMemberBadURLs, by: by(&pb.MemberAddRequest{PeerURLs: []string{"nonsense"}})},
	{name: "MemberNotFound", err: rpctypes.ErrGRPCMemberNotFound, by: by(&pb.MemberRemoveRequest{ID: 5})},
	{name: "MemberNotLearner", err: rpctypes.ErrGRPCMemberNotLearner, by: by(&pb.MemberPromoteRequest{ID: self})},
	{name: "LearnerNotReady", err: rpctypes.ErrGRPCLearnerNotReady, reason: several},
	{name: "TooManyLearners", err: rpctypes.ErrGRPCTooManyLearners, reason: several},
	{name: "ClusterIDMismatch", err: rpctypes.ErrGRPCClusterIDMismatch, reason: never},
	{name: "RequestTooLarge", err: rpctypes.ErrGRPCRequestTooLarge, by: by(put("rows/large", strings.Repeat("v", 1536<<10)))},
	{name: "RequestTooManyRequests", err: rpctypes.ErrGRPCRequestTooManyRequests, reason: "5000 entries that are committed and not applied cannot be had from outside"},

	{name: "RootUserNotExist", err: rpctypes.ErrGRPCRootUserNotExist, unbuilt: true, by: by(&pb.AuthEnableRequest{})},
	{name: "RootRoleNotExist", err: rpctypes.ErrGRPCRootRoleNotExist, unbuilt: true, by: by(&pb.AuthUserAddRequest{Name: "root", Password: "r"}, &pb.AuthEnableRequest{})},
	{name: "UserAlreadyExist", err: rpctypes.ErrGRPCUserAlreadyExist, unbuilt: true, by: by(&pb.AuthUserAddRequest{Name: "root", Password: "r"})},
	{name: "UserEmpty", err: rpctypes.ErrGRPCUserEmpty, unbuilt: true, by: by(&pb.AuthUserAddRequest{Password: "r"})},
	{name: "UserNotFound", err: rpctypes.ErrGRPCUserNotFound, unbuilt: true, by: by(&pb.AuthUserGetRequest{Name: "none"})},
	{name: "RoleAlreadyExist", err: rpctypes.ErrGRPCRoleAlreadyExist, unbuilt: true, by: by(&pb.AuthRoleAddRequest{Name: "role"}, &pb.AuthRoleAddRequest{Name: "role"})},
	{name: "RoleNotFound", err: rpctypes.ErrGRPCRoleNotFound, unbuilt: true, by: by(&pb.AuthRoleGetRequest{Role: "none"})},
	{name: "RoleEmpty", err: rpctypes.ErrGRPCRoleEmpty, unbuilt: true, by: by(&pb.AuthRoleAddRequest{})},
	{name: "AuthFailed", err: rpctypes.ErrGRPCAuthFailed, reason: "needs authentication"},
	{name: "PermissionNotGiven", err: rpctypes.ErrGRPCPermissionNotGiven, unbuilt: true, by: by(&pb.AuthRoleGrantPermissionRequest{Name: "role"})},
	{name: "PermissionDenied", err: rpctypes.ErrGRPCPermissionDenied, reason: "needs authentication"},
	{name: "RoleNotGranted", err: rpctypes.ErrGRPCRoleNotGranted, unbuilt: true, by: by(&pb.AuthUserRevokeRoleRequest{Name: "root", Role: "role"})},
	{name: "PermissionNotGranted", err: rpctypes.ErrGRPCPermissionNotGranted, unbuilt: true, by: by(&pb.AuthRoleRevokePermissionRequest{Role: "role", Key: []byte("k")})},
	{name: "AuthNotEnabled", err: rpctypes.ErrGRPCAuthNotEnabled, by: by(&pb.AuthenticateRequest{Name: "root", Password: "r"})},
	{name: "InvalidAuthToken", err: rpctypes.ErrGRPCInvalidAuthToken, reason: "needs authentication"},
	{name: "InvalidAuthMgmt", err: rpctypes.ErrGRPCInvalidAuthMgmt, reason: "needs authentication"},
	{name: "AuthOldRevision", err: rpctypes.ErrGRPCAuthOldRevision, reason: "needs authentication"},

	{name: "NoLeader", err: rpctypes.ErrGRPCNoLeader, reason: several},
	{name: "NotLeader", err: rpctypes.ErrGRPCNotLeader, reason: several},
	{name: "LeaderChanged", err: rpctypes.ErrGRPCLeaderChanged, reason: several},
	{name: "NotCapable", err: rpctypes.ErrGRPCNotCapable, reason: "needs a cluster of version 2"},
	{name: "Stopped", err: rpctypes.ErrGRPCStopped, reason: "a race with the end of the connection"},
	{name: "Timeout", err: rpctypes.ErrGRPCTimeout, reason: several},
	{name: "TimeoutDueToLeaderFail", err: rpctypes.ErrGRPCTimeoutDueToLeaderFail, reason: several},
	{name: "TimeoutDueToConnectionLost", err: rpctypes.ErrGRPCTimeoutDueToConnectionLost, reason: several},
	{name: "TimeoutWaitAppliedIndex", err: rpctypes.ErrGRPCTimeoutWaitAppliedIndex, reason: several},
	{name: "Unhealthy", err: rpctypes.ErrGRPCUnhealthy, reason: several},
	{name: "Corrupt", err: rpctypes.ErrGRPCCorrupt, by: by(raise(pb.AlarmType_CORRUPT), put("rows/a", "v")), after: lowered(pb.AlarmType_CORRUPT)},
	{name: "NotSupportedForLearner", err: rpctypes.ErrGRPCNotSupportedForLearner, reason: several},
	{name: "BadLeaderTransferee", err: rpctypes.ErrGRPCBadLeaderTransferee, by: by(&pb.MoveLeaderRequest{TargetID: 5})},

	{name: "WrongDowngradeVersionFormat", err: rpctypes.ErrGRPCWrongDowngradeVersionFormat, by: by(&pb.DowngradeRequest{Version: "nonsense"})},
	{name: "InvalidDowngradeTargetVersion", err: rpctypes.ErrGRPCInvalidDowngradeTargetVersion, by: by(&pb.DowngradeRequest{Version: "3.2"})},
	{name: "ClusterVersionUnavailable", err: rpctypes.ErrGRPCClusterVersionUnavailable, reason: "a race with the first election"},
	{name: "DowngradeInProcess", err: rpctypes.ErrGRPCDowngradeInProcess, reason: "a race with the version on its way down; TestDowngrade waits for that"},
	{name: "NoInflightDowngrade", err: rpctypes.ErrGRPCNoInflightDowngrade, reason: "logged, and not answered"},
	{name: "Canceled", err: rpctypes.ErrGRPCCanceled, reason: "a client says so itself"},
	{name: "DeadlineExceeded", err: rpctypes.ErrGRPCDeadlineExceeded, reason: "a client says so itself"},
}

// clientErrors are the two that etcd converts through a value of its client, by which the code is lost.
var clientErrors = map[string]bool{"MemberNotEnoughStarted": true, "RequestTooManyRequests": true}

func TestErrors(t *testing.T) {
	p := startPair(t, fast)
	defer p.stop()
	send := func(request fmt.Stringer) (ours, reference reply) {
		return both(p, func(s *side) reply { return s.ask(t.Context(), request) })
	}
	control := os.Getenv("E2E_SERVER") == os.Getenv("E2E_REFERENCE") // ours is etcd, too, and has everything
	for _, row := range rows {
		if (row.reason == "") == (len(row.by) == 0) {
			t.Errorf("%s has neither a case nor a reason, or both", row.name)
		}
		var ours, reference reply
		for _, request := range row.by {
			ours, reference = send(request)
		}
		if row.after != nil {
			send(row.after)
		}
		if len(row.by) == 0 {
			continue
		}
		want := failure(row.err)
		if clientErrors[row.name] {
			want = failure(status.Error(codes.Unknown, status.Convert(row.err).Message()))
		}
		if reference.text != want {
			t.Errorf("%s: etcd says %.300s, want %s", row.name, reference.text, want)
		}
		if got := ours.text; row.unbuilt && !control && status.Code(ours.err) != codes.Unimplemented {
			t.Errorf("%s is said to be refused by name, and gives %.300s", row.name, got)
		} else if (!row.unbuilt || control) && got != want {
			t.Errorf("%s: %.300s, want %s", row.name, got, want)
		}
	}
}

// TestErrorsAreAllThere reads etcd's own table: each error of it, also one that a new release brings, is in ours.
func TestErrorsAreAllThere(t *testing.T) {
	known := map[string]bool{}
	for _, row := range rows {
		known["ErrGRPC"+row.name] = true
	}
	source, _ := runtime.FuncForPC(reflect.ValueOf(rpctypes.ErrorDesc).Pointer()).FileLine(0)
	if !filepath.IsAbs(source) { // built with -trimpath: it begins with the module
		modules, err := exec.Command("go", "env", "GOMODCACHE").Output()
		if err != nil {
			t.Fatal(err)
		}
		source = filepath.Join(strings.TrimSpace(string(modules)), source)
	}
	file, err := parser.ParseFile(token.NewFileSet(), strings.Replace(source, "/md.go", "/error.go", 1), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || len(spec.Values) == 0 || !strings.HasPrefix(spec.Names[0].Name, "ErrGRPC") {
			return true
		}
		if _, made := spec.Values[0].(*ast.CallExpr); made { // the others are second names
			found++
			if !known[spec.Names[0].Name] {
				t.Errorf("%s is new", spec.Names[0].Name)
			}
		}
		return true
	})
	if found != len(known) {
		t.Errorf("etcd has %d errors, the table %d", found, len(known))
	}
}
