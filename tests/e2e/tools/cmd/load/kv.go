package main

import (
	"context"
	"fmt"
	"math/rand/v2"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func preparePut(_ context.Context, o options, f fleet) (operation, error) {
	value := value(o.valueSize)
	return func(ctx context.Context, worker int) error {
		_, err := f.of(worker).Put(ctx, key(rand.IntN(o.keys)), value)
		return err
	}, nil
}

// PrepareCAS: each worker updates a key of its own as a Kubernetes API server does.
func prepareCAS(ctx context.Context, o options, f fleet) (operation, error) {
	value := value(o.valueSize)
	revisions := make([]int64, o.clients)
	for worker := range revisions {
		response, err := f.of(worker).Put(ctx, key(worker), value)
		if err != nil {
			return nil, err
		}
		revisions[worker] = response.Header.Revision
	}
	return func(ctx context.Context, worker int) error {
		key := key(worker)
		response, err := f.of(worker).Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(key), "=", revisions[worker])).
			Then(clientv3.OpPut(key, value)).
			Else(clientv3.OpGet(key)).
			Commit()
		if err != nil {
			return err
		}
		if !response.Succeeded {
			return fmt.Errorf("%s changed, but nobody else writes it", key)
		}
		revisions[worker] = response.Header.Revision
		return nil
	}, nil
}

func prepareRange(serializable bool) func(context.Context, options, fleet) (operation, error) {
	var how []clientv3.OpOption
	if serializable {
		how = append(how, clientv3.WithSerializable())
	}
	return func(ctx context.Context, o options, f fleet) (operation, error) {
		return func(ctx context.Context, worker int) error {
			return expect(1)(f.of(worker).Get(ctx, key(rand.IntN(o.keys)), how...))
		}, f.fill(ctx, o.keys, o.valueSize)
	}
}

func prepareList(ctx context.Context, o options, f fleet) (operation, error) {
	return func(ctx context.Context, worker int) error {
		return expect(o.keys)(f.of(worker).Get(ctx, prefix, clientv3.WithPrefix()))
	}, f.fill(ctx, o.keys, o.valueSize)
}

// PreparePages reads all keys in pages of 500 at one revision, as a Kubernetes API server does; all pages are one operation.
func preparePages(ctx context.Context, o options, f fleet) (operation, error) {
	const page = 500
	end := clientv3.GetPrefixRangeEnd(prefix)
	return func(ctx context.Context, worker int) error {
		seen, revision := 0, int64(0)
		for from := prefix; ; {
			response, err := f.of(worker).Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(page), clientv3.WithRev(revision))
			if err != nil {
				return err
			}
			seen += len(response.Kvs)
			if !response.More {
				break
			}
			from, revision = string(response.Kvs[len(response.Kvs)-1].Key)+"\x00", response.Header.Revision
		}
		if seen != o.keys {
			return fmt.Errorf("%d keys in all pages, want %d", seen, o.keys)
		}
		return nil
	}, f.fill(ctx, o.keys, o.valueSize)
}

func prepareCount(ctx context.Context, o options, f fleet) (operation, error) {
	return func(ctx context.Context, worker int) error {
		response, err := f.of(worker).Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err == nil && response.Count != int64(o.keys) {
			err = fmt.Errorf("count %d, want %d", response.Count, o.keys)
		}
		return err
	}, f.fill(ctx, o.keys, o.valueSize)
}

// Expect that a read has found so many keys: a wrong answer is no faster answer.
func expect(keys int) func(*clientv3.GetResponse, error) error {
	return func(response *clientv3.GetResponse, err error) error {
		if err == nil && len(response.Kvs) != keys {
			err = fmt.Errorf("%d keys, want %d", len(response.Kvs), keys)
		}
		return err
	}
}
