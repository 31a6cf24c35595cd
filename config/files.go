package config

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
)

const (
	maxConfigFile = 4 << 20  // bytes
	maxSmallFile  = 64 << 10 // bytes of any file that the config names
)

// The permission bits that let anyone but the owner in, and those that do so
// beyond letting the group read.
const (
	othersMask      = 0o077
	beyondGroupRead = 0o037
)

// fileState is what was seen of a file: enough to tell that it changed.
type fileState struct {
	absent bool
	mode   fs.FileMode
	byRoot bool // belongs to root
	size   int64
	sum    [sha256.Size]byte // zero where the file was not read
	limit  int64             // as given to readFile

	info fs.FileInfo // with seen, only to skip reading a file again
	seen time.Time
}

// private reports whether a secret in the file is one: its owner alone can read
// it, or it is root's and root gave it to a group to read. A service manager
// hands a secret to a user who is not root by the latter: Kubernetes with
// fsGroup, systemd with LoadCredential=.
func (s fileState) private() bool {
	return s.mode&othersMask == 0 || s.byRoot && s.mode&beyondGroupRead == 0
}

func (s fileState) same(other fileState) bool {
	return s.absent == other.absent && s.mode == other.mode && s.byRoot == other.byRoot && s.size == other.size && s.sum == other.sum
}

// untouched reports whether the file on disk is surely still the one of s. A
// file younger than the clock's granularity could have been written again
// without its modification time moving.
func (s fileState) untouched(info fs.FileInfo) bool {
	return s.info != nil && os.SameFile(s.info, info) &&
		s.info.ModTime().Equal(info.ModTime()) && s.size == info.Size() && s.mode == info.Mode() && s.byRoot == ownedByRoot(info) &&
		s.seen.Sub(info.ModTime()) > 2*time.Second
}

// readFile reads a regular file of at most limit bytes. Links are followed,
// as Kubernetes mounts consist of them. The problem is "" where data is good,
// and repeats neither the path nor the content.
func readFile(path string, limit int64) (data []byte, state fileState, problem string) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fileState{absent: true, limit: limit}, statProblem(err)
	}
	state = fileState{mode: info.Mode(), byRoot: ownedByRoot(info), limit: limit, info: info, seen: time.Now()}
	if info.Mode().IsRegular() {
		state.size = info.Size()
	}
	switch {
	case info.IsDir():
		return nil, state, "is a directory"
	case !info.Mode().IsRegular():
		return nil, state, "is not a regular file"
	case info.Size() > limit:
		return nil, state, "is too large"
	}
	// Without O_NONBLOCK, a pipe put in its place just now would hang here.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, state, statProblem(err)
	}
	defer file.Close()
	data, err = io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil {
		return nil, state, "cannot be read"
	}
	// The mode that counts is that of the very file that was read.
	if opened, err := file.Stat(); err == nil {
		state.mode, state.byRoot = opened.Mode(), ownedByRoot(opened)
	}
	state.size, state.sum = int64(len(data)), sha256.Sum256(data)
	if state.size > limit {
		return nil, state, "is too large"
	}
	return data, state, ""
}

func statProblem(err error) string {
	switch {
	case os.IsNotExist(err):
		return "there is no such file"
	case os.IsPermission(err):
		return "may not be read by this user"
	default:
		return "cannot be opened"
	}
}

// trimNewline cuts the line end that editors and echo put after a secret.
func trimNewline(text string) string {
	return strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r")
}

// ReadSecret reads a secret from a file of at most 64 KiB that only its owner
// can read, or that is root's and that its group can read, too; with anyMode
// others may read it as well. A newline at its end is cut.
func ReadSecret(path string, anyMode bool) (secret.String, error) {
	value, state, problem, fix := readSecret(path, anyMode)
	switch {
	case problem == "":
		return value, nil
	case state.absent, state.private():
		return secret.String{}, fmt.Errorf("%s: %s", path, problem)
	}
	return secret.String{}, fmt.Errorf("%s: %s; %s", path, problem, fix)
}

// readSecret reads a secret from a file that is private.
func readSecret(path string, anyMode bool) (value secret.String, state fileState, problem, fix string) {
	data, state, problem := readFile(path, maxSmallFile)
	switch {
	case problem != "":
		return secret.String{}, state, problem, "relative paths start at the folder of the config file"
	case !state.private() && !anyMode:
		return secret.String{}, state, "other users can read the secret in this file", "chmod 600 it; of root and mode 0640 is accepted, too (Kubernetes: fsGroup and defaultMode 0440)"
	}
	text := trimNewline(string(data))
	if text == "" {
		return secret.String{}, state, "the file is empty", ""
	}
	return secret.New(text), state, "", ""
}
