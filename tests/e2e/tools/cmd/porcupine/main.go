// Command porcupine judges the keys of a history, as traffic records it, with github.com/anishathalye/porcupine: a second judge
// beside tests/check, with a model of its own. Exit code 0: linearizable; 1: not; 2: unreadable; 3: undecided.
//
// What is not known of a request is taken from the watches: the revision of one whose outcome is unknown, and deletions
// that were nobody's answer (leases). Watches themselves and leases are not judged here.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"
)

type verdict int

const (
	right verdict = iota
	wrong
	unreadable
	undecided
)

func main() {
	limit := flag.Duration("limit", 5*time.Minute, "how long to search in all for each history")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: porcupine [-limit DURATION] FILE..")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(int(unreadable))
	}
	worst := right
	for _, file := range flag.Args() {
		begin := time.Now()
		verdict, text := judgeFile(file, *limit)
		fmt.Printf("%s: %s (%.1f s)\n", file, text, time.Since(begin).Seconds())
		if worst == right || verdict == wrong {
			worst = verdict
		}
	}
	os.Exit(int(worst))
}

func judgeFile(file string, limit time.Duration) (verdict, string) {
	h, err := readHistory(file)
	if err != nil {
		return unreadable, err.Error()
	}
	return judge(h, limit)
}
