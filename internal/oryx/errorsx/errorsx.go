// Package errorsx offers the error helpers and carrier interfaces that fosite
// names.
package errorsx

import "github.com/pkg/errors"

// WithStack attaches a stack trace to err unless err already carries one.
// It returns nil for nil.
func WithStack(err error) error {
	if err == nil {
		return nil
	}
	if traced, ok := err.(StackTracer); ok && len(traced.StackTrace()) > 0 {
		return err
	}
	return errors.WithStack(err)
}

// Cause follows Cause methods down to the innermost error.
func Cause(err error) error {
	for {
		causer, ok := err.(interface{ Cause() error })
		if !ok {
			return err
		}
		next := causer.Cause()
		if next == nil {
			return err
		}
		err = next
	}
}

// StackTracer is an error that knows where it was made.
type StackTracer interface{ StackTrace() errors.StackTrace }

// StatusCodeCarrier is an error with an HTTP status code.
type StatusCodeCarrier interface{ StatusCode() int }

// StatusCarrier is an error with a status text.
type StatusCarrier interface{ Status() string }

// RequestIDCarrier is an error that names the request it belongs to.
type RequestIDCarrier interface{ RequestID() string }

// ReasonCarrier is an error with a reason.
type ReasonCarrier interface{ Reason() string }

// DebugCarrier is an error with internal detail.
type DebugCarrier interface{ Debug() string }

// DetailsCarrier is an error with structured detail.
type DetailsCarrier interface{ Details() map[string]any }

// IDCarrier is an error with an identifier.
type IDCarrier interface{ ID() string }
