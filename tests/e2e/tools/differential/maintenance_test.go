package differential

import (
	"fmt"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func alarm(action pb.AlarmRequest_AlarmAction, kind pb.AlarmType, member uint64) *pb.AlarmRequest {
	return &pb.AlarmRequest{Action: action, Alarm: kind, MemberID: member}
}

// closed is what is sent under an alarm: what passes it and what does not.
func closed(name string) (edges []edge) {
	for _, request := range []fmt.Stringer{
		put("closed/a", "1"), get("closed/a", ""), with(get("closed/a", ""), func(r *pb.RangeRequest) { r.Serializable = true }),
		then(get("closed/a", "")), then(get("closed/a", ""), put("closed/a", "1")), then(del("closed/none", "")), then(then(get("closed/a", ""))), &pb.TxnRequest{},
		&pb.TxnRequest{Success: then(get("closed/a", "")).Success, Failure: then(put("closed/a", "x")).Success},
		changed(put("closed/old", ""), func(r *pb.PutRequest) { r.IgnoreValue = true }), put("", ""), many(129), leased("closed/a", 4242),
		del("closed/old", ""), del("closed/none", ""), del("", ""),
		&pb.LeaseGrantRequest{ID: 7010, TTL: 60}, &pb.LeaseGrantRequest{ID: 7010, TTL: 9_000_000_001}, &pb.LeaseGrantRequest{ID: 7020, TTL: 60},
		&pb.LeaseKeepAliveRequest{ID: 7020}, &pb.LeaseTimeToLiveRequest{ID: 7020, Keys: true}, &pb.LeaseLeasesRequest{},
		&pb.LeaseRevokeRequest{ID: 7020}, &pb.LeaseRevokeRequest{ID: 4242},
		&pb.CompactionRequest{Revision: 2}, &pb.CompactionRequest{Revision: 1 << 40}, &pb.HashKVRequest{}, &pb.HashRequest{}, &pb.DefragmentRequest{},
		&pb.StatusRequest{}, &pb.MemberListRequest{Linearizable: true}, &pb.AuthStatusRequest{}, &pb.MoveLeaderRequest{TargetID: self},
	} {
		edges = append(edges, edge{fmt.Sprintf("%s: %T %v", name, request, request), request})
	}
	return edges
}

func alarmEdges() []edge {
	opened := []edge{
		{"a key", put("closed/a", "0")}, {"another", put("closed/old", "0")}, {"a lease", &pb.LeaseGrantRequest{ID: 7020, TTL: 60}},
	}
	edges := append(opened, edge{"alarms", &pb.AlarmRequest{}}, edge{"status", &pb.StatusRequest{}})
	for _, kind := range []pb.AlarmType{pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT} {
		edges = append(edges, edge{"raise", alarm(pb.AlarmRequest_ACTIVATE, kind, self)}, edge{"raise again", alarm(pb.AlarmRequest_ACTIVATE, kind, self)},
			edge{"raised", &pb.AlarmRequest{}})
		edges = append(edges, closed(kind.String())...)
		edges = append(edges, edge{"lower", alarm(pb.AlarmRequest_DEACTIVATE, kind, self)}, edge{"lower again", alarm(pb.AlarmRequest_DEACTIVATE, kind, self)},
			edge{"open again", put("closed/a", "2")})
		edges = append(edges, opened[1:]...)
	}
	return append(edges,
		edge{"an alarm of no kind", alarm(pb.AlarmRequest_ACTIVATE, pb.AlarmType_NONE, self)},
		edge{"alarms then", &pb.AlarmRequest{}},
		edge{"lower what is of no kind", alarm(pb.AlarmRequest_DEACTIVATE, pb.AlarmType_NONE, self)},
		edge{"an unknown kind", alarm(pb.AlarmRequest_ACTIVATE, 9, self)},
		edge{"alarms of an unknown kind", &pb.AlarmRequest{Alarm: 9}},
		edge{"put under an unknown alarm", put("closed/a", "3")},
		edge{"lower an unknown kind", alarm(pb.AlarmRequest_DEACTIVATE, 9, self)},
		edge{"raise one of nobody", alarm(pb.AlarmRequest_ACTIVATE, pb.AlarmType_NOSPACE, 0)},
		edge{"put under nobody's alarm", put("closed/a", "3")},
		edge{"raise another's", alarm(pb.AlarmRequest_ACTIVATE, pb.AlarmType_NOSPACE, 5)},
		edge{"and a third one", alarm(pb.AlarmRequest_ACTIVATE, pb.AlarmType_CORRUPT, 5)},
		edge{"all of them", &pb.AlarmRequest{}},
		edge{"those of one kind", &pb.AlarmRequest{Alarm: pb.AlarmType_CORRUPT}},
		edge{"those of one member", &pb.AlarmRequest{MemberID: 5}},
		edge{"lower nobody's", alarm(pb.AlarmRequest_DEACTIVATE, pb.AlarmType_NOSPACE, 0)},
		edge{"status with alarms", &pb.StatusRequest{}},
		edge{"put under the others", put("closed/a", "4")},
		edge{"lower the corrupt one", alarm(pb.AlarmRequest_DEACTIVATE, pb.AlarmType_CORRUPT, 5)},
		edge{"put under the last one", put("closed/a", "4")},
		edge{"lower another member's", alarm(pb.AlarmRequest_DEACTIVATE, pb.AlarmType_NOSPACE, 6)},
		edge{"lower the last one", alarm(pb.AlarmRequest_DEACTIVATE, pb.AlarmType_NOSPACE, 5)},
		edge{"put with none left", put("closed/a", "5")},
	)
}

func TestAlarmEdges(t *testing.T) { same(t, fast, alarmEdges()) }

// TestQuota exceeds the quota by one request, whatever else is counted.
func TestQuota(t *testing.T) {
	large := strings.Repeat("q", 1_200_000)
	lower := edge{"lower the alarm", alarm(pb.AlarmRequest_DEACTIVATE, pb.AlarmType_NOSPACE, self)}
	raised := edge{"alarms", &pb.AlarmRequest{}}
	same(t, append([]string{"--quota-backend-bytes=1000000"}, fast...), []edge{
		{"what fits", put("quota/a", "1")}, {"status", &pb.StatusRequest{}}, raised,
		{"more than fits", put("quota/a", large)}, raised, {"status with the alarm", &pb.StatusRequest{}},
		{"what would fit", put("quota/a", "2")}, {"a lease", &pb.LeaseGrantRequest{ID: 1, TTL: 60}},
		{"a deletion", del("quota/a", "")}, {"a read", get("quota/a", "")}, {"compaction", &pb.CompactionRequest{Revision: 2}},
		{"defragmentation", &pb.DefragmentRequest{}}, {"what would fit, once more", put("quota/a", "3")}, lower, raised,
		{"what fits again", put("quota/a", "3")},
		{"more than fits in a transaction", then(put("quota/a", large))}, raised, lower,
		{"more than fits in a branch not taken", &pb.TxnRequest{Failure: then(put("quota/a", large)).Success}}, raised, lower,
		{"more than fits, nested", then(then(put("quota/a", large)))}, raised, lower,
		{"more than fits, and is refused anyway", leased("quota/"+large, 77)}, raised, lower,
		{"what is there", get("quota/", "quota0")},
	})
}

func maintenanceEdges() []edge {
	return []edge{
		{"status", &pb.StatusRequest{}},
		{"hash of everything", &pb.HashRequest{}},
		{"hash of nothing", &pb.HashKVRequest{}},
		{"hash of the first revision", &pb.HashKVRequest{Revision: 1}},
		{"members", &pb.MemberListRequest{}},
		{"members, linearizable", &pb.MemberListRequest{Linearizable: true}},
		{"move the leader to itself", &pb.MoveLeaderRequest{TargetID: self}},
		{"move the leader to none", &pb.MoveLeaderRequest{}},
		{"cancel a downgrade that there is not", &pb.DowngradeRequest{Action: pb.DowngradeRequest_CANCEL}},
		{"downgrade to this version", &pb.DowngradeRequest{Version: "3.6.0"}},
		{"enable a downgrade to this version", &pb.DowngradeRequest{Action: pb.DowngradeRequest_ENABLE, Version: "3.6"}},
		{"downgrade to a version and no minor one", &pb.DowngradeRequest{Version: "3"}},
		{"downgrade to no version", &pb.DowngradeRequest{}},
		{"add a member without a URL", &pb.MemberAddRequest{}},
		{"add a member with a path", &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:1/path"}}},
		{"add a member without a port", &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1"}}},
		{"add a member that speaks ftp", &pb.MemberAddRequest{PeerURLs: []string{"ftp://127.0.0.1:1"}}},
		{"update an unknown member", &pb.MemberUpdateRequest{ID: 5, PeerURLs: []string{"http://127.0.0.1:1"}}},
		{"promote an unknown member", &pb.MemberPromoteRequest{ID: 5}},
		{"remove member 0", &pb.MemberRemoveRequest{}},
		{"auth status", &pb.AuthStatusRequest{}},
		{"authenticate", &pb.AuthenticateRequest{Name: "root", Password: "secret"}},
		{"authenticate as nobody", &pb.AuthenticateRequest{}},

		{"put", put("edge/a", "1")},
		{"delete", del("edge/a", "")},
		{"hash behind a deletion", &pb.HashKVRequest{}},
		{"compact at the deletion", &pb.CompactionRequest{Revision: 3, Physical: true}},
		{"hash behind the compaction", &pb.HashKVRequest{}},
		{"compact again", &pb.CompactionRequest{Revision: 3}},
		{"compact below", &pb.CompactionRequest{Revision: 2}},
		{"compact at 0", &pb.CompactionRequest{}},
		{"compact at a negative revision", &pb.CompactionRequest{Revision: -1}},
		{"compact ahead", &pb.CompactionRequest{Revision: 1 << 40}},
		{"put once more", put("edge/a", "2")},
		{"hash below the compaction", &pb.HashKVRequest{Revision: 2}},
		{"hash ahead", &pb.HashKVRequest{Revision: 1 << 40}},
		{"hash of a negative revision", &pb.HashKVRequest{Revision: -1}},
		{"defragment", &pb.DefragmentRequest{}},
		{"hash behind a defragmentation", &pb.HashKVRequest{}},
		{"compact at the put", &pb.CompactionRequest{Revision: 4, Physical: true}},
		{"delete all and put it again", then(del("edge/", "\x00"), put("edge/a", "3"))},
		{"hash where all was deleted and put again", &pb.HashKVRequest{}},
		{"put another", put("edge/b", "1")},
		{"hash behind that", &pb.HashKVRequest{}},
		{"status again", &pb.StatusRequest{}},
	}
}

func TestMaintenanceEdges(t *testing.T) { same(t, fast, maintenanceEdges()) }
