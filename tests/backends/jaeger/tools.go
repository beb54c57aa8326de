//go:build tools

// Package tools names the program that `install.sh` builds, so that go.mod pins all of it.
package tools

import _ "github.com/jaegertracing/jaeger/cmd/jaeger"
