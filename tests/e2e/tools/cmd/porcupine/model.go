package main

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
)

// State is the store at one revision. It is never changed, only replaced.
type state struct {
	revision int64
	keys     map[string]keyValue
}

// Input is a request, or deletions that no request of the history is known to have made.
type input struct {
	request *request
	deletes []string
}

// Output says at which revision the request took effect, and what was answered, if that is known.
type output struct {
	revision int64
	writes   bool
	response *response
}

func model(begin *state) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return begin },
		Step: func(s, in, out any) (bool, any) {
			ok, next := step(s.(*state), in.(*input), out.(*output))
			return ok, next
		},
		Equal: func(a, b any) bool {
			x, y := a.(*state), b.(*state)
			return x == y || (x.revision == y.revision && maps.Equal(x.keys, y.keys))
		},
		Hash: func(s any) uint64 { return uint64(s.(*state).revision) },
	}
}

func step(s *state, in *input, out *output) (bool, *state) {
	if !out.writes {
		if s.revision != out.revision {
			return false, s
		}
		scratch := &run{keys: s.keys, shared: true, revision: s.revision}
		answer := scratch.request(in.request)
		return !scratch.wrote && same(answer, out.response), s
	}
	if s.revision+1 != out.revision {
		return false, s
	}
	r := &run{keys: maps.Clone(s.keys), revision: out.revision}
	if in.request == nil {
		for _, key := range in.deletes {
			r.remove(key)
		}
		return r.deleted == len(in.deletes), &state{out.revision, r.keys}
	}
	answer := r.request(in.request)
	if !r.wrote || (out.response != nil && !same(answer, out.response)) {
		return false, s
	}
	return true, &state{out.revision, r.keys}
}

// Same takes lists that are nil for empty ones.
func same(a, b *response) bool {
	return reflect.DeepEqual(normal(a), normal(b))
}

func normal(r *response) response {
	out := *r
	if out.Range != nil {
		plain := *out.Range
		plain.Kvs = append([]keyValue{}, plain.Kvs...)
		out.Range = &plain
	}
	if out.Delete != nil {
		plain := *out.Delete
		plain.Prevs = append([]keyValue{}, plain.Prevs...)
		out.Delete = &plain
	}
	if out.Txn != nil {
		plain := txnResponse{Succeeded: out.Txn.Succeeded, Responses: []response{}}
		for i := range out.Txn.Responses {
			plain.Responses = append(plain.Responses, normal(&out.Txn.Responses[i]))
		}
		out.Txn = &plain
	}
	return out
}

// Run is one request at work. Keys that are shared are copied before the first write.
type run struct {
	keys     map[string]keyValue
	shared   bool
	revision int64
	wrote    bool
	deleted  int
}

func (r *run) own() {
	if r.shared {
		r.keys, r.shared = maps.Clone(r.keys), false
	}
	r.wrote = true
}

func (r *run) request(q *request) *response {
	switch {
	case q.Range != nil:
		return &response{Range: r.read(q.Range)}
	case q.Put != nil:
		return &response{Put: r.put(q.Put)}
	case q.Delete != nil:
		return &response{Delete: r.delete(q.Delete)}
	default:
		path := decide(r.keys, q.Txn)
		return &response{Txn: r.txn(q.Txn, &path)}
	}
}

func within(keys map[string]keyValue, from, end string) []string {
	var found []string
	for key := range keys {
		switch {
		case end == "" && key != from, key < from, end != "" && end != "\x00" && key >= end:
		default:
			found = append(found, key)
		}
	}
	slices.Sort(found)
	return found
}

func (r *run) read(q *rangeRequest) *rangeResponse {
	found := within(r.keys, q.Key, q.End)
	answer := &rangeResponse{Count: int64(len(found))}
	if q.CountOnly {
		return answer
	}
	if q.Limit > 0 && answer.Count > q.Limit {
		found, answer.More = found[:q.Limit], true
	}
	for _, key := range found {
		kv := r.keys[key]
		if q.KeysOnly {
			kv.Value = ""
		}
		answer.Kvs = append(answer.Kvs, kv)
	}
	return answer
}

func (r *run) put(q *putRequest) *putResponse {
	r.own()
	old, existed := r.keys[q.Key]
	kv := keyValue{Key: q.Key, Value: q.Value, Create: r.revision, Mod: r.revision, Version: 1, Lease: q.Lease}
	answer := &putResponse{}
	if existed {
		kv.Create, kv.Version = old.Create, old.Version+1
		if q.PrevKv {
			answer.Prev = &old
		}
	}
	r.keys[q.Key] = kv
	return answer
}

func (r *run) remove(key string) {
	if _, exists := r.keys[key]; exists {
		r.own()
		delete(r.keys, key)
		r.deleted++
	}
}

func (r *run) delete(q *deleteRequest) *deleteResponse {
	answer := &deleteResponse{}
	for _, key := range within(r.keys, q.Key, q.End) {
		answer.Deleted++
		if q.PrevKv {
			answer.Prevs = append(answer.Prevs, r.keys[key])
		}
		r.remove(key)
	}
	return answer
}

// Decide takes the compares of a transaction and of those inside it, all of them before the first write.
func decide(keys map[string]keyValue, q *txnRequest) []bool {
	ok := true
	for _, c := range q.Compares {
		ok = ok && holds(keys, c)
	}
	path := []bool{ok}
	for _, op := range branch(q, ok) {
		if op.Txn != nil {
			path = append(path, decide(keys, op.Txn)...)
		}
	}
	return path
}

func branch(q *txnRequest, ok bool) []request {
	if ok {
		return q.Then
	}
	return q.Else
}

func (r *run) txn(q *txnRequest, path *[]bool) *txnResponse {
	answer := &txnResponse{Succeeded: (*path)[0]}
	*path = (*path)[1:]
	for _, op := range branch(q, answer.Succeeded) {
		if op.Txn != nil {
			answer.Responses = append(answer.Responses, response{Txn: r.txn(op.Txn, path)})
		} else {
			answer.Responses = append(answer.Responses, *r.request(&op))
		}
	}
	return answer
}

func holds(keys map[string]keyValue, c compare) bool {
	found := within(keys, c.Key, c.End)
	if len(found) == 0 {
		return c.Target != "value" && matches(c, keyValue{})
	}
	for _, key := range found {
		if !matches(c, keys[key]) {
			return false
		}
	}
	return true
}

func matches(c compare, kv keyValue) bool {
	order := 0
	switch c.Target {
	case "value":
		order = strings.Compare(kv.Value, c.Value)
	default:
		number := map[string]int64{"version": kv.Version, "create": kv.Create, "mod": kv.Mod, "lease": kv.Lease}[c.Target]
		if number < c.Number {
			order = -1
		} else if number > c.Number {
			order = 1
		}
	}
	switch c.Result {
	case "=":
		return order == 0
	case "!=":
		return order != 0
	case ">":
		return order > 0
	default:
		return order < 0
	}
}
