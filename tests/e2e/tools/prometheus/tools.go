//go:build tools

// Package prometheus pins Prometheus, which evaluates the rules of the chart.
package prometheus

import (
	_ "github.com/prometheus/prometheus/cmd/prometheus"
	_ "github.com/prometheus/prometheus/cmd/promtool"
)
