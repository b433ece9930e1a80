package main

import (
	"strconv"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Record is one line of a history. Times are nanoseconds since the start of the process; tests/check/README.md says what each field means.
type record struct {
	Type     string    `json:"type"`
	Client   int       `json:"client,omitempty"`
	Endpoint int       `json:"endpoint"` // an index of the start's endpoints; -1: the client knew all of them
	Call     int64     `json:"call,omitempty"`
	Return   int64     `json:"return,omitempty"`
	Request  *request  `json:"request,omitempty"`
	Header   *header   `json:"header,omitempty"`
	Response *response `json:"response,omitempty"`
	Error    *failure  `json:"error,omitempty"`

	// Start
	Seed      uint64   `json:"seed,omitempty"`
	Endpoints []string `json:"endpoints,omitempty"`
	Prefix    string   `json:"prefix,omitempty"`
	UnixNs    int64    `json:"unix_ns,omitempty"` // the wall clock when the process's own clock was 0

	// Watches
	Watch    int        `json:"watch,omitempty"`
	Resumes  int        `json:"resumes,omitempty"`
	At       int64      `json:"at,omitempty"`
	Open     *watchOpen `json:"open,omitempty"`
	Events   []event    `json:"events,omitempty"`
	Created  bool       `json:"created,omitempty"`
	Canceled bool       `json:"canceled,omitempty"`
	Fragment bool       `json:"fragment,omitempty"`
	Compact  int64      `json:"compact_revision,omitempty"`
	Reason   string     `json:"reason,omitempty"`
	Revision int64      `json:"revision,omitempty"` // drain: up to where the watch must have come

	// Final
	Left    []int    `json:"left,omitempty"` // the endpoints of which an answer is expected
	Hash    *hash    `json:"hash,omitempty"`
	Members []member `json:"members,omitempty"`
	Status  *status  `json:"status,omitempty"`
}

type request struct {
	Range     *rangeRequest   `json:"range,omitempty"`
	Put       *putRequest     `json:"put,omitempty"`
	Delete    *deleteRequest  `json:"delete,omitempty"`
	Txn       *txnRequest     `json:"txn,omitempty"`
	Compact   *compactRequest `json:"compact,omitempty"`
	Grant     *leaseRequest   `json:"grant,omitempty"`
	KeepAlive *leaseRequest   `json:"keepalive,omitempty"`
	Revoke    *leaseRequest   `json:"revoke,omitempty"`
	TTL       *leaseRequest   `json:"ttl,omitempty"`
}

type rangeRequest struct {
	Key          string `json:"key"`
	End          string `json:"end,omitempty"`
	Revision     int64  `json:"revision,omitempty"`
	Limit        int64  `json:"limit,omitempty"`
	Serializable bool   `json:"serializable,omitempty"`
	CountOnly    bool   `json:"count_only,omitempty"`
	KeysOnly     bool   `json:"keys_only,omitempty"`
}

type putRequest struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Lease  int64  `json:"lease,omitempty"`
	PrevKv bool   `json:"prev_kv,omitempty"`
}

type deleteRequest struct {
	Key    string `json:"key"`
	End    string `json:"end,omitempty"`
	PrevKv bool   `json:"prev_kv,omitempty"`
}

type txnRequest struct {
	Compares []compare `json:"compares,omitempty"`
	Then     []request `json:"then,omitempty"`
	Else     []request `json:"else,omitempty"`
}

type compare struct {
	Key    string `json:"key"`
	End    string `json:"end,omitempty"`
	Target string `json:"target"` // value, version, create, mod, lease
	Result string `json:"result"` // = != > <
	Value  string `json:"value,omitempty"`
	Number int64  `json:"number,omitempty"`
}

type compactRequest struct {
	Revision int64 `json:"revision"`
	Physical bool  `json:"physical,omitempty"`
}

type leaseRequest struct {
	Lease int64 `json:"lease"`
	TTL   int64 `json:"ttl,omitempty"`
}

type header struct {
	Revision int64  `json:"revision"`
	Member   uint64 `json:"member"`
	Term     uint64 `json:"term"`
	Cluster  uint64 `json:"cluster"`
}

type response struct {
	Range  *rangeResponse  `json:"range,omitempty"`
	Put    *putResponse    `json:"put,omitempty"`
	Delete *deleteResponse `json:"delete,omitempty"`
	Txn    *txnResponse    `json:"txn,omitempty"`
	TTL    *int64          `json:"ttl,omitempty"` // of grants, keep-alives and questions
}

type rangeResponse struct {
	Kvs   []keyValue `json:"kvs,omitempty"`
	More  bool       `json:"more,omitempty"`
	Count int64      `json:"count"`
}

type putResponse struct {
	Prev *keyValue `json:"prev_kv,omitempty"`
}

type deleteResponse struct {
	Deleted int64      `json:"deleted"`
	Prevs   []keyValue `json:"prev_kvs,omitempty"`
}

type txnResponse struct {
	Succeeded bool       `json:"succeeded"`
	Responses []response `json:"responses,omitempty"`
}

type keyValue struct {
	Key     string `json:"key"`
	Value   string `json:"value"`
	Create  int64  `json:"create"`
	Mod     int64  `json:"mod"`
	Version int64  `json:"version"`
	Lease   int64  `json:"lease,omitempty"`
}

type failure struct {
	Code     string `json:"code"`
	Text     string `json:"text"`
	Definite bool   `json:"definite"` // the request surely had no effect
}

type watchOpen struct {
	Key      string `json:"key"`
	End      string `json:"end,omitempty"`
	Start    int64  `json:"start,omitempty"`
	PrevKv   bool   `json:"prev_kv,omitempty"`
	NoPut    bool   `json:"no_put,omitempty"`
	NoDelete bool   `json:"no_delete,omitempty"`
	Progress bool   `json:"progress,omitempty"`
	Fragment bool   `json:"fragment,omitempty"`
	Resuming bool   `json:"resuming,omitempty"` // the client library resumes by itself
}

type event struct {
	Delete bool      `json:"delete,omitempty"`
	Kv     keyValue  `json:"kv"`
	Prev   *keyValue `json:"prev_kv,omitempty"`
}

type hash struct {
	Revision int64  `json:"revision"`
	Hash     uint32 `json:"hash"`
	Compact  int64  `json:"compact_revision"`
}

type member struct {
	ID      uint64   `json:"id"`
	Name    string   `json:"name"`
	Peers   []string `json:"peers,omitempty"`
	Clients []string `json:"clients,omitempty"`
	Learner bool     `json:"learner,omitempty"`
}

type status struct {
	Leader  uint64   `json:"leader"`
	Version string   `json:"version"`
	Applied uint64   `json:"applied"`
	Learner bool     `json:"learner,omitempty"`
	Errors  []string `json:"errors,omitempty"`
}

// Padding makes a value large without making the history so: "7.12#4000#xxxx..." is recorded as "7.12#4000#".
func padded(id string, bytes int) string {
	return id + "#" + strconv.Itoa(bytes) + "#" + strings.Repeat("x", bytes)
}

func recorded(value []byte) string {
	text := string(value)
	parts := strings.SplitN(text, "#", 3)
	if len(parts) == 3 && strconv.Itoa(len(parts[2])) == parts[1] && strings.Trim(parts[2], "x") == "" {
		return parts[0] + "#" + parts[1] + "#"
	}
	return text
}

// Unrecorded is the value that was, or is to be, on the wire.
func unrecorded(text string) []byte {
	parts := strings.Split(text, "#")
	if len(parts) == 3 && parts[2] == "" {
		if bytes, err := strconv.Atoi(parts[1]); err == nil {
			return []byte(padded(parts[0], bytes))
		}
	}
	return []byte(text)
}

func headerOf(h *pb.ResponseHeader) *header {
	if h == nil {
		return nil
	}
	return &header{Revision: h.Revision, Member: h.MemberId, Term: h.RaftTerm, Cluster: h.ClusterId}
}

func keyValueOf(kv *mvccpb.KeyValue) *keyValue {
	if kv == nil {
		return nil
	}
	return &keyValue{string(kv.Key), recorded(kv.Value), kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease}
}

func keyValuesOf(kvs []*mvccpb.KeyValue) []keyValue {
	out := make([]keyValue, len(kvs))
	for i, kv := range kvs {
		out[i] = *keyValueOf(kv)
	}
	return out
}

func eventsOf(events []*mvccpb.Event) []event {
	out := make([]event, len(events))
	for i, e := range events {
		out[i] = event{Delete: e.Type == mvccpb.DELETE, Kv: *keyValueOf(e.Kv), Prev: keyValueOf(e.PrevKv)}
	}
	return out
}

func rangeResponseOf(r *pb.RangeResponse) *rangeResponse {
	return &rangeResponse{Kvs: keyValuesOf(r.Kvs), More: r.More, Count: r.Count}
}

func deleteResponseOf(r *pb.DeleteRangeResponse) *deleteResponse {
	return &deleteResponse{Deleted: r.Deleted, Prevs: keyValuesOf(r.PrevKvs)}
}

func txnResponseOf(r *pb.TxnResponse) *txnResponse {
	out := &txnResponse{Succeeded: r.Succeeded}
	for _, op := range r.Responses {
		switch inner := op.Response.(type) {
		case *pb.ResponseOp_ResponseRange:
			out.Responses = append(out.Responses, response{Range: rangeResponseOf(inner.ResponseRange)})
		case *pb.ResponseOp_ResponsePut:
			out.Responses = append(out.Responses, response{Put: &putResponse{keyValueOf(inner.ResponsePut.PrevKv)}})
		case *pb.ResponseOp_ResponseDeleteRange:
			out.Responses = append(out.Responses, response{Delete: deleteResponseOf(inner.ResponseDeleteRange)})
		case *pb.ResponseOp_ResponseTxn:
			out.Responses = append(out.Responses, response{Txn: txnResponseOf(inner.ResponseTxn)})
		}
	}
	return out
}
