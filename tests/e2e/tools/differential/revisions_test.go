package differential

import (
	"fmt"
	"reflect"
)

// A request is made before it is known at which revision it will be sent, so that a sequence means the same with requests left
// out. Its revisions are said in relation to the servers': these numbers plus or minus some.
const (
	atHead      = 1 << 50 // the current revision
	atCompacted = 1 << 51 // the compacted one
	between     = 1 << 52 // thousandths of the way from the compacted revision to the current one
	share       = 1 << 53 // thousandths of the current revision
	near        = 1 << 20 // how much may be added
)

// revisions is what the servers are at.
type revisions struct{ head, compacted int64 }

func (r revisions) number(n int64) int64 {
	for _, at := range []struct{ symbol, from, thousandths int64 }{
		{atHead, r.head, 0}, {atCompacted, r.compacted, 0}, {between, r.compacted, r.head - r.compacted}, {share, 0, r.head},
	} {
		if more := n - at.symbol; more > -near && more < near {
			if at.thousandths != 0 {
				return at.from + at.thousandths*more/1000
			}
			if at.symbol == between || at.symbol == share {
				return at.from
			}
			return at.from + more
		}
	}
	return n
}

// resolve is a copy of the request with all revisions as numbers.
func (r revisions) resolve(request fmt.Stringer) fmt.Stringer {
	return r.copy(reflect.ValueOf(request)).Interface().(fmt.Stringer)
}

func (r revisions) copy(from reflect.Value) reflect.Value {
	switch from.Kind() {
	case reflect.Pointer:
		if from.IsNil() {
			return from
		}
		to := reflect.New(from.Type().Elem())
		to.Elem().Set(r.copy(from.Elem()))
		return to
	case reflect.Interface:
		if from.IsNil() {
			return from
		}
		return r.copy(from.Elem())
	case reflect.Slice:
		if from.IsNil() || from.Type().Elem().Kind() == reflect.Uint8 {
			return from
		}
		to := reflect.MakeSlice(from.Type(), from.Len(), from.Len())
		for i := range from.Len() {
			to.Index(i).Set(r.copy(from.Index(i)))
		}
		return to
	case reflect.Struct:
		to := reflect.New(from.Type()).Elem()
		to.Set(from)
		for i := range from.NumField() {
			if to.Field(i).CanSet() {
				to.Field(i).Set(r.copy(from.Field(i)))
			}
		}
		return to
	case reflect.Int64:
		to := reflect.New(from.Type()).Elem()
		to.SetInt(r.number(from.Int()))
		return to
	default:
		return from
	}
}
