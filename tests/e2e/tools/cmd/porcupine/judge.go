package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// Porcupine remembers a set of operations for each state it has seen, so that it gets this many revisions at a time. The cut is no
// loss: what is of an earlier revision comes earlier in every order, and its time has been set accordingly.
const chunkRevisions = 500

// Operation is placed by the revision that it showed.
type operation struct {
	call, ret int64
	in        *input
	out       *output
	line      int
}

func judge(h *history, limit time.Duration) (verdict, string) {
	operations, fault := resolve(h)
	if fault != "" {
		return wrong, fault
	}
	begin := &state{h.base.Header.Revision, map[string]keyValue{}}
	for _, kv := range h.base.Response.Range.Kvs {
		begin.keys[kv.Key] = kv
	}
	operations = fillForeign(h, operations, begin.revision)
	if hole := firstHole(operations, begin.revision); hole != 0 {
		return undecided, fmt.Sprintf("undecided: nothing says what was written at revision %d", hole)
	}
	if fault := tighten(operations); fault != "" {
		return wrong, fault
	}
	chunks := cut(operations, begin.revision)
	deadline := time.Now().Add(limit)
	for _, chunk := range chunks {
		left := time.Until(deadline)
		if left <= 0 {
			return undecided, "undecided: the time is up at revision " + fmt.Sprint(begin.revision)
		}
		// Porcupine would find no order either, but only after it has tried all of them, and would not say why.
		if fault := misfit(chunk, begin); fault != "" {
			return wrong, fmt.Sprintf("NOT linearizable after revision %d: %s", begin.revision, fault)
		}
		switch porcupine.CheckOperationsTimeout(model(begin), asOperations(chunk), left) {
		case porcupine.Unknown:
			return undecided, fmt.Sprintf("undecided: the time is up after revision %d", begin.revision)
		case porcupine.Illegal:
			return wrong, fmt.Sprintf("NOT linearizable after revision %d: no order of the operations fits", begin.revision)
		}
		begin = replay(chunk, begin)
	}
	return right, fmt.Sprintf("linearizable: %d operations up to revision %d", len(operations), begin.revision)
}

// Resolve gives each operation its revision. An operation of unknown outcome that no watch shows has had no effect, if there is no hole.
func resolve(h *history) ([]operation, string) {
	events, seen := watched(h)
	owner := map[string]*line{}
	writers := map[int64]*line{}
	var operations []operation
	for i := range h.lines {
		l := &h.lines[i]
		if l.Request == nil || (l.Request.Range == nil && l.Request.Put == nil && l.Request.Delete == nil && l.Request.Txn == nil) {
			continue
		}
		if l.Error != nil {
			if !l.Error.Definite {
				values(l.Request, func(value string) { owner[value] = l })
			}
			continue
		}
		o := operation{l.Call, l.Return, &input{request: l.Request}, &output{l.Header.Revision, wrote(l.Response), l.Response}, l.number}
		if r := l.Request.Range; r != nil && r.Revision > 0 {
			o.out.revision, o.call = r.Revision, math.MinInt64/2 // the past, which may be asked for at any time
		} else if serializable(l.Request) {
			o.call = math.MinInt64 / 2
		}
		if o.out.revision < h.base.Header.Revision {
			continue
		}
		if o.out.writes {
			if other := writers[o.out.revision]; other != nil {
				return nil, fmt.Sprintf("NOT linearizable: lines %d and %d have both written revision %d", other.number, l.number, o.out.revision)
			}
			writers[o.out.revision] = l
		}
		operations = append(operations, o)
	}
	for revision, changes := range events {
		if writers[revision] != nil || revision <= h.base.Header.Revision {
			continue
		}
		o := operation{math.MinInt64 / 2, seen[revision], nil, &output{revision, true, nil}, 0}
		for _, e := range changes {
			if e.Delete {
				continue
			}
			l := owner[e.Kv.Value]
			if l == nil {
				return nil, fmt.Sprintf("NOT linearizable: nobody has written %q, which is there at revision %d", e.Kv.Value, revision)
			}
			o.in, o.call, o.line = &input{request: l.Request}, l.Call, l.number
		}
		if o.call > o.ret {
			return nil, fmt.Sprintf("NOT linearizable: revision %d was seen before line %d, which wrote it, was asked for", revision, o.line)
		}
		if o.in == nil {
			o.in = &input{}
			for key := range changes {
				o.in.deletes = append(o.in.deletes, key)
			}
		}
		operations = append(operations, o)
	}
	slices.SortStableFunc(operations, byRevision)
	return operations, ""
}

// ByRevision puts the write of a revision before what reads it.
func byRevision(a, b operation) int {
	switch {
	case a.out.revision != b.out.revision:
		return int(a.out.revision - b.out.revision)
	case a.out.writes == b.out.writes:
		return 0
	case a.out.writes:
		return -1
	default:
		return 1
	}
}

// Watched is what the watches show of each revision, and when the first of them did.
func watched(h *history) (map[int64]map[string]event, map[int64]int64) {
	events, seen := map[int64]map[string]event{}, map[int64]int64{}
	for _, l := range h.lines {
		for _, e := range l.Events {
			if events[e.Kv.Mod] == nil {
				events[e.Kv.Mod], seen[e.Kv.Mod] = map[string]event{}, l.At
			}
			events[e.Kv.Mod][e.Kv.Key] = e
			seen[e.Kv.Mod] = min(seen[e.Kv.Mod], l.At)
		}
	}
	return events, seen
}

func values(q *request, visit func(string)) {
	if q.Put != nil {
		visit(q.Put.Value)
	}
	if q.Txn != nil {
		for _, op := range slices.Concat(q.Txn.Then, q.Txn.Else) {
			values(&op, visit)
		}
	}
}

func wrote(r *response) bool {
	switch {
	case r == nil:
		return false
	case r.Put != nil:
		return true
	case r.Delete != nil:
		return r.Delete.Deleted > 0
	case r.Txn != nil:
		return slices.ContainsFunc(r.Txn.Responses, func(inner response) bool { return wrote(&inner) })
	default:
		return false
	}
}

func serializable(q *request) bool {
	if q.Txn != nil {
		for _, op := range slices.Concat(q.Txn.Then, q.Txn.Else) {
			if op.Range == nil || !op.Range.Serializable {
				return false
			}
		}
		return true
	}
	return q.Range != nil && q.Range.Serializable
}

// FillForeign puts a write without effect where a watch over all keys has passed a revision and nothing of it is known: the write of
// another client, to keys with another prefix.
func fillForeign(h *history, operations []operation, revision int64) []operation {
	passed := passedRevisions(h)
	filled := make([]operation, 0, len(operations))
	for _, o := range operations {
		last := o.out.revision
		if o.out.writes {
			last--
		}
		for revision < last && passed(revision+1) {
			revision++
			filled = append(filled, operation{math.MinInt64 / 2, math.MaxInt64, &input{}, &output{revision, true, nil}, 0})
		}
		revision = max(revision, o.out.revision)
		filled = append(filled, o)
	}
	return filled
}

// PassedRevisions says of a revision whether a watch over all keys, without filters, has been through it.
func passedRevisions(h *history) func(int64) bool {
	type span struct{ from, to int64 }
	spans := map[int]span{}
	for _, l := range h.lines {
		switch {
		case l.Open != nil:
			o := l.Open
			if o.Start > 0 && o.Key <= h.prefix && o.End > h.prefix && !strings.HasPrefix(o.End, h.prefix) && !o.NoPut && !o.NoDelete {
				spans[l.Watch] = span{o.Start, o.Start - 1}
			}
		case l.Type == "watch" && !l.Created && !l.Canceled && !l.Fragment && l.Header != nil:
			if s, whole := spans[l.Watch]; whole {
				to := l.Header.Revision
				if len(l.Events) > 0 {
					to = l.Events[len(l.Events)-1].Kv.Mod
				}
				spans[l.Watch] = span{s.from, max(s.to, to)}
			}
		}
	}
	return func(revision int64) bool {
		for _, s := range spans {
			if s.from <= revision && revision <= s.to {
				return true
			}
		}
		return false
	}
}

func firstHole(operations []operation, revision int64) int64 {
	for _, o := range operations {
		if o.out.writes {
			revision++
			if o.out.revision != revision {
				return revision
			}
		} else if o.out.revision > revision {
			return revision + 1
		}
	}
	return 0
}

func cut(operations []operation, base int64) [][]operation {
	var chunks [][]operation
	for begin := 0; begin < len(operations); {
		last := base + chunkRevisions*(1+(operations[begin].out.revision-base)/chunkRevisions)
		end := begin
		for end < len(operations) && operations[end].out.revision < last {
			end++
		}
		chunks = append(chunks, operations[begin:end])
		begin = end
	}
	return chunks
}

// Finer is how many moments the search has for each nanosecond.
const finer = 1 << 10

// Tighten raises each operation's call to those of the operations before it: in every order that revisions allow, it comes after them.
// Without that, porcupine tries whatever was sent early first, and may try for hours. It is a fault if there is no time left for one.
func tighten(operations []operation) string {
	var latest, latestOfGroup *operation
	for i := range operations {
		o := &operations[i]
		if i > 0 && byRevision(operations[i-1], *o) != 0 {
			latest = latestOfGroup
		}
		o.call = max(o.call, math.MinInt64/finer) * finer
		o.ret = min(o.ret, math.MaxInt64/finer) * finer
		if latest != nil {
			o.call = max(o.call, latest.call+1)
			if o.call > o.ret {
				return fmt.Sprintf("NOT linearizable: line %d (revision %d) ended before line %d (revision %d) or what comes before it began",
					o.line, o.out.revision, latest.line, latest.out.revision)
			}
		}
		if latestOfGroup == nil || o.call >= latestOfGroup.call {
			latestOfGroup = o
		}
	}
	return ""
}

func asOperations(chunk []operation) []porcupine.Operation {
	out := make([]porcupine.Operation, len(chunk))
	for i, o := range chunk {
		out[i] = porcupine.Operation{Input: o.in, Call: o.call, Output: o.out, Return: o.ret}
	}
	return out
}

// Replay is the state after a chunk whose order porcupine has found: revisions leave only one for the writes.
func replay(chunk []operation, s *state) *state {
	for _, o := range chunk {
		if o.out.writes {
			_, s = step(s, o.in, o.out)
		}
	}
	return s
}

// Misfit names an operation that does not fit the state at its revision.
func misfit(chunk []operation, s *state) string {
	for _, o := range chunk {
		ok, next := step(s, o.in, o.out)
		if !ok {
			return fmt.Sprintf("line %d does not fit the state at revision %d", o.line, s.revision)
		}
		s = next
	}
	return ""
}
