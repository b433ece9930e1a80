package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"
)

// History writes one line for each record, at once: a run that is killed leaves all but its last line.
type history struct {
	lock  sync.Mutex
	file  *os.File
	start time.Time
	err   error
	count map[string]int
}

func newHistory(path string) (*history, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &history{file: file, start: time.Now(), count: map[string]int{}}, nil
}

// Now is the time of the history's one clock, which never jumps.
func (h *history) now() int64 { return int64(time.Since(h.start)) }

func (h *history) write(r record, outcome string) {
	line, err := json.Marshal(r)
	h.lock.Lock()
	defer h.lock.Unlock()
	h.count[outcome]++
	if err == nil {
		_, err = h.file.Write(append(line, '\n'))
	}
	if err != nil && h.err == nil {
		h.err = err
	}
}

// Close says whether all lines were written.
func (h *history) close() error {
	h.lock.Lock()
	defer h.lock.Unlock()
	if err := h.file.Close(); err != nil && h.err == nil {
		h.err = err
	}
	if h.err != nil {
		return fmt.Errorf("the history is not whole: %w", h.err)
	}
	return nil
}
