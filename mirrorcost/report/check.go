package report

import (
	"fmt"
	"math"
	"reflect"
	"strings"
)

// FieldError says which value of a report cannot be written or was read and
// makes no sense. Field is a path in the JSON form, such as
// "mirror.stages[2].ns_per_write".
type FieldError struct {
	Field   string
	Problem string
}

func (e *FieldError) Error() string { return e.Field + " " + e.Problem }

// Check looks for what no form can carry faithfully: numbers that are not
// finite, histograms whose buckets and counts differ in number. The error is a
// [*FieldError].
func (r *Report) Check() error {
	return check("", reflect.ValueOf(r).Elem())
}

func check(path string, v reflect.Value) error {
	switch v.Kind() {
	case reflect.Float64:
		if f := v.Float(); math.IsNaN(f) || math.IsInf(f, 0) {
			return &FieldError{path, fmt.Sprintf("is %v: a mean over nothing was not caught where it was computed", f)}
		}
	case reflect.Pointer:
		if !v.IsNil() {
			return check(path, v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			if err := check(fmt.Sprintf("%s[%d]", path, i), v.Index(i)); err != nil {
				return err
			}
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			if err := check(fmt.Sprintf("%s[%q]", path, it.Key().String()), it.Value()); err != nil {
				return err
			}
		}
	case reflect.Struct:
		return checkStruct(path, v)
	}
	return nil
}

func checkStruct(path string, v reflect.Value) error {
	if h, ok := v.Interface().(Histogram); ok && len(h.UpperNs) != len(h.Count) {
		return &FieldError{path, fmt.Sprintf("has %d bounds and %d counts", len(h.UpperNs), len(h.Count))}
	}
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if !field.IsExported() {
			continue
		}
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			name = strings.ToLower(field.Name)
		}
		if err := check(strings.TrimPrefix(path+"."+name, "."), v.Field(i)); err != nil {
			return err
		}
	}
	return nil
}
