package main

import (
	"errors"
	"strings"
)

// Exit codes. Success is 0.
const (
	exitFailed = 1
	exitUsage  = 2
)

// exitError is an error with the exit code that it deserves. An error without
// one means that the work failed.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// usageError marks an error as a mistake in the command line. It keeps nil.
func usageError(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{exitUsage, err}
}

// exitCode returns what the process should exit with.
func exitCode(err error) int {
	var exit *exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.code
	default:
		return exitFailed
	}
}

// oneLine joins the lines of an error, so that a complaint is one line.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}
