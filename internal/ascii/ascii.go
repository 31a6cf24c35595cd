// Package ascii judges the plain text that codes, ids and header values are
// made of.
package ascii

// Visible reports whether s is 1 to limit characters from ! to ~.
func Visible(s string, limit int) bool {
	if s == "" || len(s) > limit {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
