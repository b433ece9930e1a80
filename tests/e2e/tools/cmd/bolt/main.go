// Command bolt lets the real bbolt judge and make database files. BOLT_FILE is the file; BOLT_SEED repeats the choices;
// BOLT_ROWS is about how many rows a made file has.
//
//	bolt check   runs bbolt's own check on the file and prints what it holds
//	bolt write   makes the file with random content, a snapshot of it for each third seed, then does what check does
//	bolt churn   deletes and inserts random rows in the file, checking after each transaction, then does what check does
//
// The output is one line of JSON: page size, and by bucket the number of rows and a SHA-256 over them. An error goes to the
// standard error output, with exit code 1.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"
)

// bucket is what one bucket holds; the name and the digest are in hexadecimal.
type bucket struct {
	Name   string `json:"name"`
	Rows   int    `json:"rows"`
	Digest string `json:"sha256"`
}

type summary struct {
	PageSize int      `json:"page_size"`
	Buckets  []bucket `json:"buckets"`
}

func main() {
	if err := run(os.Args[1:], os.Getenv("BOLT_FILE")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string, path string) error {
	if len(args) != 1 || path == "" {
		return errors.New("usage: BOLT_FILE=… [BOLT_SEED=…] bolt check|write|churn")
	}
	if args[0] == "check" {
		return check(path)
	}
	seed, err := strconv.ParseInt(os.Getenv("BOLT_SEED"), 10, 64)
	if err != nil {
		return fmt.Errorf("BOLT_SEED: %w", err)
	}
	random := rand.New(rand.NewSource(seed))
	switch args[0] {
	case "write":
		err = write(path, seed, random)
	case "churn":
		err = churn(path, random)
	default:
		err = fmt.Errorf("unknown command %q", args[0])
	}
	if err != nil {
		return err
	}
	return check(path)
}

func check(path string) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *bolt.Tx) error {
		if err := verify(tx); err != nil {
			return err
		}
		out := summary{PageSize: db.Info().PageSize, Buckets: []bucket{}}
		err := tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			rows, digest := sum(b)
			out.Buckets = append(out.Buckets, bucket{hex.EncodeToString(name), rows, digest})
			return nil
		})
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(out)
	})
}

// verify is bbolt's own check of the whole file.
func verify(tx *bolt.Tx) error {
	var found []error
	for err := range tx.Check() {
		found = append(found, err)
	}
	return errors.Join(found...)
}

// sum counts the rows and digests them: each key and value after its length, 4 bytes little endian.
func sum(b *bolt.Bucket) (int, string) {
	rows, hash := 0, sha256.New()
	cursor := b.Cursor()
	for key, value := cursor.First(); key != nil; key, value = cursor.Next() {
		for _, part := range [][]byte{key, value} {
			var length [4]byte
			binary.LittleEndian.PutUint32(length[:], uint32(len(part)))
			hash.Write(length[:])
			hash.Write(part)
		}
		rows++
	}
	return rows, hex.EncodeToString(hash.Sum(nil))
}

// write makes a file as etcd might: many transactions, buckets of every size, rows overwritten and deleted.
func write(path string, seed int64, random *rand.Rand) error {
	rows := 20_000
	if text := os.Getenv("BOLT_ROWS"); text != "" {
		var err error
		if rows, err = strconv.Atoi(text); err != nil {
			return fmt.Errorf("BOLT_ROWS: %w", err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	sizes := []int{4096, 1024, 16384, 65536, 2048}
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		PageSize:       sizes[uint64(seed)%uint64(len(sizes))],
		NoFreelistSync: seed%2 == 0,
		FreelistType:   bolt.FreelistMapType,
		NoSync:         true,
		Timeout:        time.Second,
	})
	if err != nil {
		return err
	}
	defer db.Close()
	limits := map[string]int{"alarm": 0, "auth": 2, "cluster": 3, "key": rows, "lease": rows / 60, "meta": 8, "members": 40}
	for transaction := 0; transaction < 30; transaction++ {
		err := db.Update(func(tx *bolt.Tx) error {
			for _, name := range []string{"alarm", "auth", "cluster", "key", "lease", "meta", "members"} {
				b, err := tx.CreateBucketIfNotExists([]byte(name))
				if err != nil {
					return err
				}
				if name == "key" {
					b.FillPercent = 0.9
				}
				if _, err := b.NextSequence(); err != nil {
					return err
				}
				if err := fill(b, random, limits[name], 15*rows); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if seed%3 != 2 {
		return nil
	}
	if err := db.View(func(tx *bolt.Tx) error { return tx.CopyFile(path+".snapshot", 0o600) }); err != nil {
		return err
	}
	return os.Rename(path+".snapshot", path)
}

// fill puts and deletes about a thirtieth of the rows that the bucket may have.
func fill(b *bolt.Bucket, random *rand.Rand, limit, largest int) error {
	for range (limit + 14) / 15 {
		key := fmt.Appendf(nil, "%08d", random.Intn(limit))
		if random.Intn(50) == 0 {
			key = append(key, bytes.Repeat([]byte{byte(random.Intn(256))}, random.Intn(700))...)
		}
		if err := b.Put(key, content(random, largest)); err != nil {
			return err
		}
		if random.Intn(3) == 0 {
			if err := b.Delete(fmt.Appendf(nil, "%08d", random.Intn(limit))); err != nil {
				return err
			}
		}
	}
	return nil
}

func content(random *rand.Rand, largest int) []byte {
	size := random.Intn(120)
	switch random.Intn(200) {
	case 0, 1, 2:
		size = 0
	case 3, 4:
		size = 3_000 + random.Intn(9_000)
	case 5:
		size = random.Intn(largest)
	}
	value := make([]byte, size)
	random.Read(value)
	return value
}

// churn changes every bucket the way a server would go on with the file: pages merge, split, and empty.
func churn(path string, random *rand.Rand) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoSync: true, Timeout: time.Second})
	if err != nil {
		return err
	}
	defer db.Close()
	for transaction := 0; transaction < 12; transaction++ {
		part := random.Float64()
		err := db.Update(func(tx *bolt.Tx) error {
			return tx.ForEach(func(_ []byte, b *bolt.Bucket) error { return disturb(b, random, part) })
		})
		if err != nil {
			return err
		}
		if err := db.View(verify); err != nil {
			return fmt.Errorf("after transaction %d: %w", transaction, err)
		}
	}
	return nil
}

// disturb deletes the given part of a random range of the rows, and puts new ones at its end.
func disturb(b *bolt.Bucket, random *rand.Rand, part float64) error {
	var keys [][]byte
	cursor := b.Cursor()
	for key, _ := cursor.First(); key != nil; key, _ = cursor.Next() {
		keys = append(keys, bytes.Clone(key))
	}
	if len(keys) == 0 {
		return b.Put([]byte("first"), content(random, 300_000))
	}
	from := random.Intn(len(keys))
	to := from + 1 + random.Intn(len(keys)-from)
	for _, key := range keys[from:to] {
		if random.Float64() > part {
			continue
		}
		if err := b.Delete(key); err != nil {
			return err
		}
	}
	last := keys[len(keys)-1]
	for i := range random.Intn(50) {
		key := fmt.Appendf(bytes.Clone(last[:min(len(last), 100)]), "~%04d", i)
		if err := b.Put(key, content(random, 300_000)); err != nil {
			return err
		}
	}
	return nil
}
