package postgres

import (
	"testing"
	"time"

	"github.com/wxidp/wxidp/internal/secret"
	"github.com/wxidp/wxidp/storage"
)

// Threat 23: a node that dies without a word, in the middle of an operation
// about a user, does not keep others from ending the user's sign-ins for longer
// than an operation may take.
func TestThreat23LocksOfADeadNode(t *testing.T) {
	const timeout = time.Second
	dead := openStore(t, Options{Timeout: timeout}, hooks{})
	alive := openDatabase(t, Options{DSN: secret.New(dead.pool.Config().ConnString()), Timeout: 5 * timeout}, hooks{})
	signed := signIn(t, alive, request("o1"))
	conn, err := dead.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := dead.hold(&rows{ctx: t.Context(), conn: conn.Conn()}, []string{signed.UserID}); err != nil {
		t.Fatal(err)
	}
	// It is never heard of again.
	if err := alive.RevokeUser(t.Context(), signed.UserID, "test"); err != nil {
		t.Fatalf("RevokeUser: %v", err)
	}
	access, err := alive.CheckAccess(t.Context(), storage.AccessCheck{FamilyID: signed.Family.ID})
	if err != nil || access.Verdict != storage.AccessFamilyRevoked {
		t.Errorf("verdict %v, %v", access.Verdict, err)
	}
}
