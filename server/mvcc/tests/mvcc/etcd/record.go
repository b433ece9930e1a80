// Records what a real etcd answers to random requests, as the file that etcd.rs replays:
//
//	go run . <client address of an empty etcd> <seed> <number of requests> > replies.bin
//
// A record is kind (1 byte), length (4 bytes, big-endian) and bytes of the request, then, if it was answered, 0 and length
// and bytes of the response, else 1 and length and bytes of the message. Headers keep their revision only.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"log"
	"math/rand"
	"os"
	"strconv"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

type message interface{ Marshal() ([]byte, error) }

type recorder struct {
	out               *bufio.Writer
	kv                pb.KVClient
	lease             pb.LeaseClient
	maintenance       pb.MaintenanceClient
	random            *rand.Rand
	revision, compact int64
	compacted         map[int64]bool
}

var keys = []string{"a", "aa", "ab", "b", "c", "d"}
var ends = []string{"", "", "", "\x00", "ab", "b", "c", "z"}
var values = []string{"", "1", "2", "longer than the others"}

func pick[T any](r *recorder, from []T) T { return from[r.random.Intn(len(from))] }

func (r *recorder) rarely(n int) bool { return r.random.Intn(n) == 0 }

func (r *recorder) leaseID() int64 {
	if r.rarely(2) {
		return int64(1 + r.random.Intn(3))
	}
	return 0
}

func (r *recorder) rangeRequest() *pb.RangeRequest {
	request := &pb.RangeRequest{
		Key:        []byte(pick(r, keys)),
		RangeEnd:   []byte(pick(r, ends)),
		SortOrder:  pb.RangeRequest_SortOrder(r.random.Intn(3)),
		SortTarget: pb.RangeRequest_SortTarget(r.random.Intn(5)),
		KeysOnly:   r.rarely(4),
		CountOnly:  r.rarely(8),
	}
	if r.rarely(30) {
		request.SortTarget = 5
	}
	if r.rarely(2) {
		request.Limit = int64(r.random.Intn(6)) - 1
	}
	if r.rarely(2) {
		request.Revision = r.revision + 2 - int64(r.random.Intn(25))
	}
	for _, filter := range []*int64{&request.MinModRevision, &request.MaxModRevision, &request.MinCreateRevision, &request.MaxCreateRevision} {
		if r.rarely(8) {
			*filter = max(0, r.revision-int64(r.random.Intn(25)))
		}
	}
	return request
}

func (r *recorder) putRequest(mayIgnore bool) *pb.PutRequest {
	request := &pb.PutRequest{Key: []byte(pick(r, keys)), Value: []byte(pick(r, values)), PrevKv: r.rarely(2), Lease: r.leaseID()}
	if mayIgnore && r.rarely(8) {
		request.IgnoreValue = true
		if !r.rarely(5) {
			request.Value = nil
		}
	}
	if mayIgnore && r.rarely(8) {
		request.IgnoreLease = true
		if !r.rarely(5) {
			request.Lease = 0
		}
	}
	return request
}

func (r *recorder) deleteRequest() *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: []byte(pick(r, keys)), RangeEnd: []byte(pick(r, ends)), PrevKv: r.rarely(2)}
}

func (r *recorder) compare() *pb.Compare {
	compare := &pb.Compare{Key: []byte(pick(r, keys)), RangeEnd: []byte(pick(r, ends)), Result: pb.Compare_CompareResult(r.random.Intn(4))}
	number := max(0, r.revision-int64(r.random.Intn(15)))
	if r.rarely(3) {
		number = int64(r.random.Intn(3))
	}
	compare.Target = pb.Compare_CompareTarget(r.random.Intn(5))
	switch compare.Target {
	case pb.Compare_VERSION:
		compare.TargetUnion = &pb.Compare_Version{Version: number}
	case pb.Compare_CREATE:
		compare.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: number}
	case pb.Compare_MOD:
		compare.TargetUnion = &pb.Compare_ModRevision{ModRevision: number}
	case pb.Compare_VALUE:
		compare.TargetUnion = &pb.Compare_Value{Value: []byte(pick(r, values))}
	case pb.Compare_LEASE:
		compare.TargetUnion = &pb.Compare_Lease{Lease: r.leaseID()}
	}
	if r.rarely(20) {
		compare.TargetUnion = nil
	}
	return compare
}

// Puts that ignore and deletes do not meet in one transaction: etcd panics when the one takes what the other removed.
func (r *recorder) txnRequest(depth int, deletes bool) *pb.TxnRequest {
	request := &pb.TxnRequest{}
	for range r.random.Intn(3) {
		request.Compare = append(request.Compare, r.compare())
	}
	for _, branch := range []*[]*pb.RequestOp{&request.Success, &request.Failure} {
		for range r.random.Intn(4) {
			*branch = append(*branch, r.op(depth, deletes))
		}
	}
	return request
}

func (r *recorder) op(depth int, deletes bool) *pb.RequestOp {
	switch choice := r.random.Intn(10); {
	case choice < 4:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r.putRequest(!deletes)}}
	case choice < 6 && deletes:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r.deleteRequest()}}
	case choice < 8 && depth > 0:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r.txnRequest(depth-1, deletes)}}
	default:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r.rangeRequest()}}
	}
}

func (r *recorder) write(parts ...[]byte) {
	for _, part := range parts {
		if _, err := r.out.Write(part); err != nil {
			log.Fatal(err)
		}
	}
}

func length(of []byte) []byte { return binary.BigEndian.AppendUint32(nil, uint32(len(of))) }

func (r *recorder) record(kind byte, request, response message, header *pb.ResponseHeader, err error) {
	sent, failed := request.Marshal()
	if failed != nil {
		log.Fatal(failed)
	}
	r.write([]byte{kind}, length(sent), sent)
	if err != nil {
		text := []byte(status.Convert(err).Message())
		r.write([]byte{1}, length(text), text)
		return
	}
	r.revision = header.Revision
	*header = pb.ResponseHeader{Revision: header.Revision}
	received, failed := response.Marshal()
	if failed != nil {
		log.Fatal(failed)
	}
	r.write([]byte{0}, length(received), received)
}

func (r *recorder) step(ctx context.Context) {
	switch choice := r.random.Intn(100); {
	case choice < 30:
		request := r.putRequest(true)
		response, err := r.kv.Put(ctx, request)
		r.record('p', request, response, response.GetHeader(), err)
	case choice < 42:
		request := r.deleteRequest()
		response, err := r.kv.DeleteRange(ctx, request)
		r.record('d', request, response, response.GetHeader(), err)
	case choice < 65:
		request := r.txnRequest(2, r.rarely(2))
		response, err := r.kv.Txn(ctx, request)
		r.record('t', request, response, response.GetHeader(), err)
	case choice < 83:
		request := r.rangeRequest()
		response, err := r.kv.Range(ctx, request)
		r.record('r', request, response, response.GetHeader(), err)
	case choice < 88:
		request := &pb.LeaseGrantRequest{ID: int64(1 + r.random.Intn(3)), TTL: 8_000_000_000 + int64(r.random.Intn(2))*2_000_000_000}
		response, err := r.lease.LeaseGrant(ctx, request)
		r.record('g', request, response, response.GetHeader(), err)
	case choice < 90:
		request := &pb.LeaseRevokeRequest{ID: int64(1 + r.random.Intn(3))}
		response, err := r.lease.LeaseRevoke(ctx, request)
		r.record('v', request, response, response.GetHeader(), err)
	case choice < 92:
		request := &pb.CompactionRequest{Revision: r.revision + 1 - int64(r.random.Intn(12)), Physical: true}
		response, err := r.kv.Compact(ctx, request)
		if err == nil {
			r.compact = request.Revision
			r.compacted[request.Revision] = true
		}
		r.record('c', request, response, response.GetHeader(), err)
	default:
		request := &pb.HashKVRequest{}
		if r.rarely(2) {
			request.Revision = r.revision + 2 - int64(r.random.Intn(20))
			// etcd keeps hashes that it computed while it compacted, of another compact revision.
			if r.compacted[request.Revision] || request.Revision < 0 {
				request.Revision = 0
			}
		}
		response, err := r.maintenance.HashKV(ctx, request)
		r.record('h', request, response, response.GetHeader(), err)
	}
}

func main() {
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	seed, _ := strconv.ParseInt(os.Args[2], 10, 64)
	requests, _ := strconv.Atoi(os.Args[3])
	r := &recorder{
		out: bufio.NewWriter(os.Stdout), kv: pb.NewKVClient(connection), lease: pb.NewLeaseClient(connection),
		maintenance: pb.NewMaintenanceClient(connection), random: rand.New(rand.NewSource(seed)), revision: 1, compacted: map[int64]bool{},
	}
	for range requests {
		r.step(context.Background())
	}
	if err := r.out.Flush(); err != nil {
		log.Fatal(err)
	}
}
