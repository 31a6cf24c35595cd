// Package oryx stands in for github.com/ory/x, of which fosite uses a dozen
// lines while the module itself pulls in gRPC and four tracing exporters.
// Only what fosite calls is here; docs/decisions.md has the figures.
package oryx
