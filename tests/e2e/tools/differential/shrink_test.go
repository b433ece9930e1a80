package differential

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// shrinker makes a sequence to which the servers answer differently as small as it gets within a minute.
type shrinker struct {
	testing.TB
	plants []grpc.UnaryClientInterceptor
	end    time.Time

	steps []fmt.Stringer
	sent  []string // the steps as they were sent
	found *mismatch
}

// shrink gives nil if fresh servers answer alike.
func shrink(t testing.TB, steps []fmt.Stringer, plants ...grpc.UnaryClientInterceptor) *shrinker {
	s := &shrinker{TB: t, plants: plants, end: time.Now().Add(time.Minute)}
	if !s.fails(steps) {
		return nil
	}
	s.leaveOut()
	s.simplify()
	s.leaveOut() // what the simpler steps no longer need
	return s
}

func (s *shrinker) String() string {
	return fmt.Sprintf("%d requests:\n%s\n got: %.2000s\nwant: %.2000s", len(s.steps), strings.Join(s.sent, "\n"), s.found.got, s.found.want)
}

func (s *shrinker) late() bool { return time.Now().After(s.end) }

// fails takes the steps, to the one that shows the difference, if fresh servers still differ.
func (s *shrinker) fails(steps []fmt.Stringer) bool {
	p := startPair(s, fast, s.plants...)
	p.passing = true
	played, found := run(s, p, steps)
	if found == nil || strings.HasPrefix(found.want, "Unavailable") { // a reference that is gone is no difference
		return false
	}
	if s.found != nil && reflect.TypeOf(steps[found.step]) != reflect.TypeOf(s.steps[s.found.step]) {
		return false // another difference, perhaps one that random requests keep away from
	}
	s.steps, s.sent, s.found = steps[:found.step+1], played.sent, found
	return true
}

// leaveOut tries without one half, a quarter and so on, down to single steps (delta debugging).
func (s *shrinker) leaveOut() {
	for size := (len(s.steps) + 1) / 2; size > 0 && !s.late(); {
		before := len(s.steps)
		// From the end on: what comes late depends on what came early.
		for to := before; to > 0 && !s.late(); to = min(to-size, len(s.steps)) {
			rest := slices.Delete(slices.Clone(s.steps), max(to-size, 0), to)
			_ = len(rest) > 0 && s.fails(rest)
		}
		if len(s.steps) == before || size > len(s.steps) {
			size /= 2
		}
	}
}

// simplify leaves out parts of each step.
func (s *shrinker) simplify() {
	for i := 0; i < len(s.steps); i++ {
		for again := true; again; {
			again = slices.ContainsFunc(simpler(reflect.ValueOf(s.steps[i])), func(part reflect.Value) bool {
				steps := slices.Clone(s.steps)
				steps[i] = part.Interface().(fmt.Stringer)
				return !s.late() && s.fails(steps)
			}) && i < len(s.steps)
		}
	}
}

// simpler is the message with one of its fields, or of the elements of its lists, left out; at any depth.
func simpler(of reflect.Value) (out []reflect.Value) {
	with := func(change func(reflect.Value)) {
		other := reflect.New(of.Type()).Elem()
		other.Set(of)
		change(other)
		out = append(out, other)
	}
	switch of.Kind() {
	case reflect.Pointer:
		if of.IsNil() {
			return nil
		}
		for _, to := range simpler(of.Elem()) {
			with(func(other reflect.Value) { other.Set(to.Addr()) })
		}
	case reflect.Interface:
		for _, to := range simpler(of.Elem()) {
			with(func(other reflect.Value) { other.Set(to) })
		}
	case reflect.Struct:
		for i := range of.NumField() {
			if field := of.Field(i); of.Type().Field(i).IsExported() && !field.IsZero() {
				with(func(other reflect.Value) { other.Field(i).SetZero() })
				for _, to := range simpler(field) {
					with(func(other reflect.Value) { other.Field(i).Set(to) })
				}
			}
		}
	case reflect.Slice:
		for i := range of.Len() {
			if of.Type().Elem().Kind() == reflect.Uint8 {
				break
			}
			with(func(other reflect.Value) {
				other.Set(reflect.AppendSlice(of.Slice3(0, i, i), of.Slice(i+1, of.Len())))
			})
			for _, to := range simpler(of.Index(i)) {
				with(func(other reflect.Value) {
					other.Set(reflect.AppendSlice(reflect.MakeSlice(of.Type(), 0, of.Len()), of))
					other.Index(i).Set(to)
				})
			}
		}
	}
	return out
}

// report shrinks a failed sequence and prints what is left of it.
func report(t *testing.T, seed int64, steps []fmt.Stringer) {
	if s := shrink(t, steps); s != nil {
		t.Errorf("E2E_SEED=%d, shrunk from %d to %v", seed, len(steps), s)
	} else {
		t.Errorf("E2E_SEED=%d does not fail again: it depends on time", seed)
	}
}

// TestShrinkFindsThePlantedBug has a server that forgets one key when it counts what a DeleteRange took, if there were several.
func TestShrinkFindsThePlantedBug(t *testing.T) {
	plant := func(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, call grpc.UnaryInvoker, options ...grpc.CallOption) error {
		err := call(ctx, method, request, answer, conn, options...)
		if got, ok := answer.(*pb.DeleteRangeResponse); ok && got.Deleted > 1 {
			got.Deleted--
		}
		return err
	}
	s := shrink(t, sequence(seed(t), 400), plant)
	if s == nil {
		t.Fatal("the planted bug is not found")
	}
	// Two puts, one of which may be nested, and their deletion.
	if _, ok := s.steps[len(s.steps)-1].(*pb.DeleteRangeRequest); !ok || len(s.steps) > 3 {
		t.Fatalf("shrunk to %v", s)
	}
	t.Logf("shrunk to %v", s)
}
