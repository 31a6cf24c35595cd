package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// validator is a resource server that verifies access tokens by itself. It
// keeps the JWK Set for as long as the answer allowed and asks no earlier, not
// even for a key that it does not know: there must be none.
type validator struct {
	rig  *Rig
	node func() *Node // whom to ask for the JWK Set

	mu       sync.Mutex
	keys     map[string]*ecdsa.PublicKey // by kid
	fetched  time.Duration               // on the history's clock
	until    time.Duration
	verified int
	kids     map[string]bool // that have signed something
}

func newValidator(r *Rig, node func() *Node) *validator {
	return &validator{rig: r, node: node, until: -1, kids: map[string]bool{}}
}

// verify checks the signature of a token that was just issued.
func (v *validator) verify(ctx context.Context, token string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.rig.History.Now() >= v.until {
		if err := v.fetch(ctx); err != nil {
			return err
		}
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return fmt.Errorf("no JWT")
	}
	var header struct{ KID, Alg string }
	raw, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err == nil {
		err = json.Unmarshal(raw, &header)
	}
	if err != nil {
		return err
	}
	key := v.keys[header.KID]
	if key == nil {
		return fmt.Errorf("the key %s (%s) is in no JWK Set that was fetched since %s and may be used until %s", header.KID, header.Alg, v.fetched, v.until)
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || len(sig) != 64 || !ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		return fmt.Errorf("the signature by key %s is wrong", header.KID)
	}
	v.verified++
	v.kids[header.KID] = true
	return nil
}

var errNoSet = errors.New("there is no JWK Set")

// fetch gets the JWK Set. Its age counts from before the request.
func (v *validator) fetch(ctx context.Context) error {
	n := v.node()
	op := &Op{Kind: Other, Node: n.Name}
	answer := v.rig.send(ctx, v.rig.http, op, v.rig.url(n, "/.well-known/jwks.json"), nil, nil)
	v.rig.History.Add(op)
	if op.Outcome != OK {
		return errNoSet // whether it had to be answered is R7's affair
	}
	_, age, ok := strings.Cut(answer.header.Get("Cache-Control"), "max-age=")
	seconds, err := strconv.Atoi(age)
	if !ok || err != nil {
		return fmt.Errorf("JWK Set without max-age: %q", answer.header.Get("Cache-Control"))
	}
	var set struct {
		Keys []struct{ KID, Kty, Crv, X, Y string }
	}
	if err := json.Unmarshal(answer.body, &set); err != nil {
		return err
	}
	v.keys = map[string]*ecdsa.PublicKey{}
	for _, k := range set.Keys {
		if k.Kty != "EC" || k.Crv != "P-256" {
			continue
		}
		x, errX := base64.RawURLEncoding.DecodeString(k.X)
		y, errY := base64.RawURLEncoding.DecodeString(k.Y)
		if errX != nil || errY != nil {
			return fmt.Errorf("the key %s cannot be read", k.KID)
		}
		key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
		if err != nil {
			return fmt.Errorf("the key %s: %w", k.KID, err)
		}
		v.keys[k.KID] = key
	}
	v.fetched, v.until = op.Start, op.Start+time.Duration(seconds)*time.Second
	return nil
}

// validateFor lets a few people sign in at nodes in turn for a while, and
// validators of all ages verify what they get. It returns what went wrong.
func validateFor(ctx context.Context, r *Rig, node func() *Node, validators []*validator, length time.Duration) (wrong []string) {
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	var mu sync.Mutex
	var group sync.WaitGroup
	for i, v := range validators {
		group.Go(func() {
			pause(ctx, time.Duration(i)*300*time.Millisecond) // so that their caches are of all ages
			for n := 0; ctx.Err() == nil; n++ {
				user := fmt.Sprintf("signer-%d-%d", i, n%20)
				code, err := r.Sim.Login(appID, user)
				if err != nil {
					panic(err) // the app is there
				}
				op, tokens := r.SignIn(context.Background(), node(), user, code, "")
				if op.Outcome == OK {
					err = v.verify(context.Background(), tokens.Access)
				}
				if err != nil && !errors.Is(err, errNoSet) {
					mu.Lock()
					wrong = append(wrong, err.Error())
					mu.Unlock()
				}
				pause(ctx, 50*time.Millisecond)
			}
		})
	}
	group.Wait()
	return wrong
}

// promotions counts, by kid, how often nodes have logged that a key began to
// sign.
func (r *Rig) promotions() map[string]int {
	out := map[string]int{}
	for _, n := range r.Nodes {
		for line := range strings.Lines(n.Log()) {
			if !strings.Contains(line, `"event":"keys.changed"`) {
				continue
			}
			var change struct{ KID, To string }
			if json.Unmarshal([]byte(line), &change) == nil && change.To == "current" {
				out[change.KID]++
			}
		}
	}
	return out
}

// judgeRotations checks that keys rotated at least so many times, each once,
// and that what they signed could be verified.
func (t *Trial) judgeRotations(r *Rig, validators []*validator, wrong []string, least int) {
	kids, verified := map[string]bool{}, 0
	for _, v := range validators {
		verified += v.verified
		for kid := range v.kids {
			kids[kid] = true
		}
	}
	for i, text := range wrong {
		if i == maxShown {
			t.Fail("… and %d more tokens that cannot be verified", len(wrong)-i)
			break
		}
		t.Fail("R1: a token that cannot be verified: %s", text)
	}
	for kid, times := range r.promotions() {
		if times > 1 {
			t.Fail("the key %s began to sign %d times", kid, times)
		}
	}
	t.Note("%d tokens of %d keys verified from caches", verified, len(kids))
	if len(kids) < least+1 {
		t.Fail("only %d keys have signed: the rotation is not at work", len(kids))
	}
}
