package main

import (
	"strings"
	"testing"
	"time"
)

// A right history: revision 4 is a put that was never answered, 5 the end of a lease, 6 a transaction.
const story = `
{"type":"start","endpoints":["a"],"prefix":""}
{"type":"base","header":{"revision":1},"response":{"range":{"count":0}}}
{"type":"op","call":10,"return":20,"request":{"put":{"key":"a","value":"1"}},"header":{"revision":2},"response":{"put":{}}}
{"type":"op","call":15,"return":25,"request":{"put":{"key":"b","value":"2","lease":7}},"header":{"revision":3},"response":{"put":{}}}
{"type":"op","call":30,"return":60,"request":{"put":{"key":"c","value":"3"}},"error":{"definite":false}}
{"type":"watch","at":40,"events":[{"kv":{"key":"c","value":"3","create":4,"mod":4,"version":1}}]}
{"type":"watch","at":50,"events":[{"delete":true,"kv":{"key":"b","mod":5}}]}
{"type":"op","call":70,"return":80,"request":{"txn":{"compares":[{"key":"a","target":"mod","result":"=","number":2}],"then":[{"put":{"key":"a","value":"4","prev_kv":true}},{"delete":{"key":"c"}},{"txn":{"compares":[{"key":"c","target":"version","result":"=","number":1}],"then":[{"range":{"key":"c"}}]}}]}},"header":{"revision":6},"response":{"txn":{"succeeded":true,"responses":[{"put":{"prev_kv":{"key":"a","value":"1","create":2,"mod":2,"version":1}}},{"delete":{"deleted":1}},{"txn":{"succeeded":true,"responses":[{"range":{"count":0}}]}}]}}}
{"type":"op","call":90,"return":95,"request":{"range":{"key":"a","end":"z"}},"header":{"revision":6},"response":{"range":{"kvs":[{"key":"a","value":"4","create":2,"mod":6,"version":2}],"count":1}}}
{"type":"op","call":96,"return":98,"request":{"range":{"key":"a","end":"z","revision":3}},"header":{"revision":6},"response":{"range":{"kvs":[{"key":"a","value":"1","create":2,"mod":2,"version":1},{"key":"b","value":"2","create":3,"mod":3,"version":1,"lease":7}],"count":2}}}
{"type":"done"}
`

func verdictOf(t *testing.T, text string) (verdict, string) {
	t.Helper()
	h, err := parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return judge(h, 10*time.Second)
}

func TestRightHistory(t *testing.T) {
	if verdict, text := verdictOf(t, story); verdict != right {
		t.Fatal(text)
	}
}

func TestWrongHistories(t *testing.T) {
	for name, lie := range map[string][2]string{
		"stale read":             {`"request":{"range":{"key":"a","end":"z"}},"header":{"revision":6}`, `"request":{"range":{"key":"a","end":"z"}},"header":{"revision":4}`},
		"lost write":             {`{"key":"a","value":"4","create":2,"mod":6,"version":2}],"count":1`, `{"key":"a","value":"1","create":2,"mod":2,"version":1}],"count":1`},
		"wrong version":          {`"mod":6,"version":2`, `"mod":6,"version":3`},
		"revision of two writes": {`"header":{"revision":3}`, `"header":{"revision":2}`},
		"later before earlier":   {`"call":15,"return":25,"request":{"put":{"key":"b"`, `"call":5,"return":8,"request":{"put":{"key":"b"`},
		"half a transaction":     {`"header":{"revision":6},"response":{"range":{"kvs":[{"key":"a"`, `"header":{"revision":6},"response":{"range":{"kvs":[{"key":"c","value":"3","create":4,"mod":4,"version":1},{"key":"a"`},
		"wrong previous value":   {`"prev_kv":{"key":"a","value":"1"`, `"prev_kv":{"key":"a","value":"0"`},
		"value of nobody":        {`"kv":{"key":"c","value":"3"`, `"kv":{"key":"c","value":"9"`},
		"wrong old revision":     {`"mod":3,"version":1,"lease":7}],"count":2`, `"mod":3,"version":1}],"count":2`},
		"seen before asked for":  {`"call":30,"return":60`, `"call":45,"return":60`},
	} {
		t.Run(name, func(t *testing.T) {
			changed := strings.Replace(story, lie[0], lie[1], 1)
			if changed == story {
				t.Fatal("the lie is not told")
			}
			if verdict, text := verdictOf(t, changed); verdict != wrong {
				t.Fatalf("verdict %d: %s", verdict, text)
			}
		})
	}
}

func TestHoleIsUndecided(t *testing.T) {
	without := strings.Replace(story, `{"type":"watch","at":50`, `{"type":"end","at":50`, 1)
	if verdict, text := verdictOf(t, without); verdict != undecided {
		t.Fatalf("verdict %d: %s", verdict, text)
	}
}

// Another client writes to other keys at revision 7: the watch over all of ours passes it without an event.
func TestForeignWritesAreNoHoles(t *testing.T) {
	foreign := strings.Replace(story, `{"type":"base"`, `{"type":"open","watch":1,"open":{"key":"a","end":"z","start":2}}
{"type":"base"`, 1)
	foreign = strings.Replace(foreign, `"prefix":""`, `"prefix":"a"`, 1)
	foreign = strings.Replace(foreign, `"call":90,"return":95,"request":{"range":{"key":"a","end":"z"}},"header":{"revision":6}`, `"call":90,"return":95,"request":{"range":{"key":"a","end":"z"}},"header":{"revision":7}`, 1)
	if verdict, text := verdictOf(t, foreign); verdict != undecided {
		t.Fatalf("verdict %d: %s", verdict, text)
	}
	passed := foreign + `{"type":"watch","watch":1,"at":99,"header":{"revision":7}}
`
	if verdict, text := verdictOf(t, passed); verdict != right {
		t.Fatalf("verdict %d: %s", verdict, text)
	}
}
