//go:build !unix

package config

import "io/fs"

func ownedByRoot(fs.FileInfo) bool { return false }
