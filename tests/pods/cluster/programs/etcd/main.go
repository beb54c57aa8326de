// Package main is the etcd server: the module's own command is not in a package that can be built
// from outside.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
