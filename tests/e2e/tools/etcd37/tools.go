//go:build tools

// Package etcd37 pins etcd 3.7, for RangeStream.
package etcd37

import (
	_ "go.etcd.io/etcd/server/v3"
)
