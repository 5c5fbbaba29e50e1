package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// SchemaError means that a report was written in a version of the JSON form
// that this package does not read.
type SchemaError struct {
	Got string
}

func (e *SchemaError) Error() string {
	if e.Got == "" {
		return fmt.Sprintf("it names no schema; a saved report says %q", Schema)
	}
	return fmt.Sprintf("its schema is %q and this version reads %q: use the version of coreplica that wrote it", e.Got, Schema)
}

func writeJSON(w io.Writer, r *Report) error  { return encode(w, r, "  ") }
func writeJSONL(w io.Writer, r *Report) error { return encode(w, r, "") }

// encode writes nothing unless it can write all.
func encode(w io.Writer, r *Report, indent string) error {
	if err := r.Check(); err != nil {
		return err
	}
	out := *r
	out.Schema = Schema
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(&out); err != nil {
		return err
	}
	_, err := w.Write(buf.Bytes())
	return err
}

// Parse reads the JSON form. It does not read stacks, which are not part of
// it. Fields that it does not know are skipped: they may be added within one
// version. The error is a [*SchemaError] where the version is another one.
func Parse(data []byte) (*Report, error) {
	var head struct {
		Schema string `json:"schema"`
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&head); err != nil {
		return nil, notReport(err)
	}
	if head.Schema != Schema {
		return nil, notReport(&SchemaError{head.Schema})
	}
	r := new(Report)
	again := json.NewDecoder(bytes.NewReader(data))
	if err := again.Decode(r); err != nil {
		return nil, notReport(err)
	}
	if _, err := again.Token(); !errors.Is(err, io.EOF) {
		return nil, notReport(errors.New("something follows the report; of several lines take one"))
	}
	if err := r.Check(); err != nil {
		return nil, notReport(err)
	}
	return r, nil
}

func notReport(err error) error {
	return fmt.Errorf("parse report of `coreplica mirrorcost run`: %w", err)
}
