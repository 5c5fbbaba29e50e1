package main

import (
	"encoding/json"
	"fmt"
	"io"
)

// writeJSON writes a result for programs, indented so that people can read it
// too.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}
