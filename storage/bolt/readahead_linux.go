package bolt

import (
	"os"

	"golang.org/x/sys/unix"
)

// readPlainly has the kernel keep what is read of a file in single pages. For a
// file that is read in order it would choose large ones, and each commit would
// pay for all of one of which it changes a part.
func readPlainly(file *os.File) {
	_ = unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_RANDOM) // it is advice
}
