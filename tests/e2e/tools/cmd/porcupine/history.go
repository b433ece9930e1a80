package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// Line is as much of a history's line as this judge reads.
type line struct {
	Type     string
	Prefix   string
	Call     int64
	Return   int64
	At       int64
	Request  *request
	Header   *struct{ Revision int64 }
	Response *response
	Error    *struct{ Definite bool }
	Events   []event
	Watch    int
	Open     *watchOpen
	Created  bool
	Canceled bool
	Fragment bool

	number int
}

type request struct {
	Range  *rangeRequest
	Put    *putRequest
	Delete *deleteRequest
	Txn    *txnRequest
}

type rangeRequest struct {
	Key, End     string
	Revision     int64
	Limit        int64
	Serializable bool
	CountOnly    bool `json:"count_only"`
	KeysOnly     bool `json:"keys_only"`
}

type putRequest struct {
	Key, Value string
	Lease      int64
	PrevKv     bool `json:"prev_kv"`
}

type deleteRequest struct {
	Key, End string
	PrevKv   bool `json:"prev_kv"`
}

type txnRequest struct {
	Compares   []compare
	Then, Else []request
}

type compare struct {
	Key, End       string
	Target, Result string
	Value          string
	Number         int64
}

type response struct {
	Range  *rangeResponse
	Put    *putResponse
	Delete *deleteResponse
	Txn    *txnResponse
}

type rangeResponse struct {
	Kvs   []keyValue
	More  bool
	Count int64
}

type putResponse struct {
	Prev *keyValue `json:"prev_kv"`
}

type deleteResponse struct {
	Deleted int64
	Prevs   []keyValue `json:"prev_kvs"`
}

type txnResponse struct {
	Succeeded bool
	Responses []response
}

type keyValue struct {
	Key, Value           string
	Create, Mod, Version int64
	Lease                int64
}

type watchOpen struct {
	Key, End string
	Start    int64
	NoPut    bool `json:"no_put"`
	NoDelete bool `json:"no_delete"`
}

type event struct {
	Delete bool
	Kv     keyValue
}

type history struct {
	base   line
	prefix string
	lines  []line
}

// ReadHistory takes a last line that was cut off for the end.
func readHistory(file string) (*history, error) {
	source, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = source.Close() }()
	return parse(source)
}

func parse(source io.Reader) (*history, error) {
	h := &history{}
	reader := bufio.NewReaderSize(source, 1<<20)
	var broken error
	done := false
	for number := 1; ; number++ {
		text, err := reader.ReadBytes('\n')
		if len(text) > 1 {
			if broken != nil {
				return nil, broken
			}
			l := line{number: number}
			if e := json.Unmarshal(text, &l); e != nil {
				broken = fmt.Errorf("line %d: %w", number, e)
			} else if l.Type == "base" {
				h.base = l
			} else if l.Type == "done" {
				done = true
			} else if l.Type == "start" {
				h.prefix = l.Prefix
			} else if l.Type == "op" || l.Type == "open" || l.Type == "watch" {
				h.lines = append(h.lines, l)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if !done {
		h.cutOff()
	}
	if h.base.Header == nil || h.base.Response == nil || h.base.Response.Range == nil {
		return nil, errors.New("there is no base line")
	}
	return h, nil
}

// CutOff leaves out the end of a run that was killed: requests under way then are in no line, and by this much earlier all had ended.
func (h *history) cutOff() {
	end := int64(0)
	for _, l := range h.lines {
		end = max(end, l.Return, l.At)
	}
	end -= 5_000_000_000
	h.lines = slices.DeleteFunc(h.lines, func(l line) bool { return l.At > end || l.Call > end })
	for i, l := range h.lines {
		if l.Return > end {
			h.lines[i].Error, h.lines[i].Response = &struct{ Definite bool }{}, nil
		}
	}
}
