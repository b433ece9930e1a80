package crash

import (
	"context"
	"fmt"
	"maps"
	"math/rand"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// value is what a key holds; the zero value is an absent key.
type value struct {
	text  string
	lease clientv3.LeaseID
	mod   int64 // 0 while only the server knows it
}

// state is all that one writer owns: keys and leases that nobody else touches.
type state struct {
	keys   map[string]value
	leases map[clientv3.LeaseID]bool
}

func (s state) clone() state { return state{maps.Clone(s.keys), maps.Clone(s.leases)} }

// writer sends one request at a time, so that at most one is in doubt after a kill.
type writer struct {
	name    string
	random  *rand.Rand
	seq     int
	known   state
	doubt   *state // the state if the request that was not answered has been done
	acked   int
	highest int64
	history map[int64]map[string]string // by revision: key to value, "" for a delete; acknowledged writes only
}

func newWriter(name string, seed int64) *writer {
	return &writer{
		name: name, random: rand.New(rand.NewSource(seed)), history: map[int64]map[string]string{},
		known: state{map[string]value{}, map[clientv3.LeaseID]bool{}},
	}
}

func (w *writer) key() string { return fmt.Sprintf("crash/%s/%d", w.name, w.random.Intn(8)) }

func (w *writer) text() string {
	w.seq++
	size := w.random.Intn(300)
	if w.random.Intn(40) == 0 {
		size = 60_000
	}
	return fmt.Sprintf("%d-%s", w.seq, strings.Repeat("x", size))
}

func (w *writer) lease() clientv3.LeaseID {
	for id := range w.known.leases {
		return id
	}
	return 0
}

// request is one write: the state after it and how to send it.
type request struct {
	after state
	send  func(context.Context, *clientv3.Client) (int64, error)
}

// run writes until a request fails, which leaves that one in doubt.
func (w *writer) run(ctx context.Context, client *clientv3.Client) {
	for ctx.Err() == nil {
		r := w.request()
		revision, err := r.send(ctx, client)
		if err != nil {
			w.doubt = &r.after
			return
		}
		w.acknowledge(r.after, revision)
	}
}

// acknowledge takes over what has been answered at this revision.
func (w *writer) acknowledge(after state, revision int64) {
	events := map[string]string{}
	for key, v := range after.keys {
		if v.mod == 0 {
			v.mod = revision
			after.keys[key] = v
			events[key] = v.text
		}
	}
	for key := range w.known.keys {
		if _, ok := after.keys[key]; !ok {
			events[key] = ""
		}
	}
	if len(events) > 0 {
		w.history[revision] = events
	}
	w.known, w.acked, w.highest = after, w.acked+1, max(w.highest, revision)
}

func (w *writer) request() request {
	after := w.known.clone()
	switch n := w.random.Intn(20); {
	case n < 9:
		return w.put(after)
	case n < 13:
		return w.txn(after)
	case n < 16:
		return w.delete(after)
	case n < 18:
		return w.grant(after)
	default:
		return w.revoke(after)
	}
}

func (w *writer) put(after state) request {
	key, v := w.key(), value{text: w.text()}
	var options []clientv3.OpOption
	if id := w.lease(); id != 0 && w.random.Intn(3) == 0 {
		v.lease, options = id, append(options, clientv3.WithLease(id))
	}
	after.keys[key] = v
	return request{after, func(ctx context.Context, client *clientv3.Client) (int64, error) {
		r, err := client.Put(ctx, key, v.text, options...)
		if err != nil {
			return 0, err
		}
		return r.Header.Revision, nil
	}}
}

// txn replaces two keys if the first is as last seen, which it must be.
func (w *writer) txn(after state) request {
	a, b, text := w.key(), w.key(), w.text()
	ops := []clientv3.Op{clientv3.OpPut(a, text)}
	after.keys[a] = value{text: text}
	if a != b {
		ops = append(ops, clientv3.OpPut(b, text))
		after.keys[b] = value{text: text}
	}
	seen := w.known.keys[a].mod
	return request{after, func(ctx context.Context, client *clientv3.Client) (int64, error) {
		r, err := client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(a), "=", seen)).Then(ops...).Else(clientv3.OpGet(a)).Commit()
		if err != nil {
			return 0, err
		}
		if !r.Succeeded {
			panic(fmt.Sprintf("%s: key %s was last written at %d, the server has %v", w.name, a, seen, r.Responses[0].GetResponseRange().Kvs))
		}
		return r.Header.Revision, nil
	}}
}

func (w *writer) delete(after state) request {
	key := w.key()
	delete(after.keys, key)
	return request{after, func(ctx context.Context, client *clientv3.Client) (int64, error) {
		r, err := client.Delete(ctx, key)
		if err != nil {
			return 0, err
		}
		return r.Header.Revision, nil
	}}
}

func (w *writer) grant(after state) request {
	id := clientv3.LeaseID(w.random.Int63()>>1 + 1)
	after.leases[id] = true
	return request{after, func(ctx context.Context, client *clientv3.Client) (int64, error) {
		return grant(ctx, client, id)
	}}
}

func (w *writer) revoke(after state) request {
	id := w.lease()
	if id == 0 || len(after.leases) < 4 {
		return w.grant(after)
	}
	delete(after.leases, id)
	for key, v := range after.keys {
		if v.lease == id {
			delete(after.keys, key)
		}
	}
	return request{after, func(ctx context.Context, client *clientv3.Client) (int64, error) {
		r, err := client.Revoke(ctx, id)
		if err != nil {
			return 0, err
		}
		return r.Header.Revision, nil
	}}
}

// settle compares with what the server has after a restart: all that was acknowledged, and of the request in doubt all or nothing.
func (w *writer) settle(actual state) error {
	doubt := w.doubt
	w.doubt = nil
	why := differ(w.known, actual)
	if why == "" {
		return nil
	}
	if doubt == nil {
		return fmt.Errorf("writer %s: %s", w.name, why)
	}
	if also := differ(*doubt, actual); also != "" {
		return fmt.Errorf("writer %s: neither without the request in doubt (%s) nor with it (%s)", w.name, why, also)
	}
	w.known = actual
	return nil
}

func differ(want, actual state) string {
	for key, v := range want.keys {
		got, ok := actual.keys[key]
		switch {
		case !ok:
			return fmt.Sprintf("%s of revision %d is lost", key, v.mod)
		case got.text != v.text || got.lease != v.lease || (v.mod != 0 && got.mod != v.mod):
			return fmt.Sprintf("%s is %.20q at %d with lease %x, acknowledged was %.20q at %d with lease %x", key, got.text, got.mod, got.lease, v.text, v.mod, v.lease)
		}
	}
	for key, v := range actual.keys {
		if _, ok := want.keys[key]; !ok {
			return fmt.Sprintf("%s has come back, at revision %d", key, v.mod)
		}
	}
	for id := range want.leases {
		if !actual.leases[id] {
			return fmt.Sprintf("lease %x is lost", id)
		}
	}
	for id := range actual.leases {
		if !want.leases[id] {
			return fmt.Sprintf("lease %x has come back", id)
		}
	}
	return ""
}
