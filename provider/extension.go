package provider

import (
	"context"

	"github.com/ory/fosite"

	"github.com/wxidp/wxidp/grants"
	"github.com/wxidp/wxidp/storage"
)

// proofGrants makes every grants.Grant a fosite handler: one handler for all,
// because fosite keeps one per Go type.
type proofGrants struct {
	p      *Provider
	byType map[string]grants.Grant
}

// proof is what the first pass over a proof grant found out.
type proof struct {
	subject grants.Subject
	repeat  *repeat         // nil: the request has no Idempotency-Key
	earlier *storage.Family // set: the request repeats a sign-in that succeeded
}

var _ grantHandler = (*proofGrants)(nil)

func (h *proofGrants) grantTypes() []string {
	types := make([]string, 0, len(h.byType))
	for grantType := range h.byType {
		types = append(types, grantType)
	}
	return types
}

func (h *proofGrants) grant(requester fosite.AccessRequester) grants.Grant {
	if types := requester.GetGrantTypes(); len(types) == 1 {
		return h.byType[types[0]]
	}
	return nil
}

// CanSkipClientAuth is false: a mini-program is a public client, which
// authenticates by naming itself.
func (h *proofGrants) CanSkipClientAuth(context.Context, fosite.AccessRequester) bool { return false }

func (h *proofGrants) CanHandleTokenEndpointRequest(_ context.Context, requester fosite.AccessRequester) bool {
	return h.grant(requester) != nil
}

// HandleTokenEndpointRequest lets the grant prove who the End-User is, unless
// the request repeats one that has an outcome.
func (h *proofGrants) HandleTokenEndpointRequest(ctx context.Context, requester fosite.AccessRequester) (err error) {
	grant := h.grant(requester)
	if grant == nil {
		return fosite.ErrUnknownRequest
	}
	sess, err := h.p.admit(ctx, requester, grant.Type())
	if err != nil {
		return err
	}
	sess.proof = new(proof)
	if sess.proof.repeat, err = h.p.repeats.begin(ctx, sess); err != nil {
		return err
	}
	// The second pass ends the repeat if this one succeeds.
	defer func() {
		if err != nil {
			h.p.endRepeat(ctx, sess.proof.repeat, err)
		}
	}()
	if sess.proof.repeat != nil {
		family, err := h.p.earlierOutcome(ctx, sess)
		if err != nil || family != nil {
			sess.proof.earlier = family
			return err
		}
	}
	form := requester.GetRequestForm()
	sess.proof.subject, err = grant.Prove(ctx, grants.Request{
		Param:          form.Get,
		ClientID:       sess.client.ID,
		WeChatAppID:    sess.client.WeChatAppID,
		RequireKnown:   sess.client.RequireKnown,
		KeepSessionKey: sess.client.keepSessionKey,
		TakesPhone:     sess.client.takesPhone(),
		RemoteIP:       sess.req.RemoteIP,
		ID:             sess.req.ID,
	})
	if err != nil {
		sess.proof.earlier, err = h.p.outcomeElsewhere(ctx, sess, err)
	}
	return err
}

// PopulateTokenEndpointResponse records the sign-in in one commit and mints.
func (h *proofGrants) PopulateTokenEndpointResponse(ctx context.Context, requester fosite.AccessRequester, responder fosite.AccessResponder) (err error) {
	if h.grant(requester) == nil {
		return fosite.ErrUnknownRequest
	}
	sess := requester.GetSession().(*session)
	defer func() { h.p.endRepeat(ctx, sess.proof.repeat, err) }()

	out, err := h.p.signIn(ctx, sess)
	if err != nil {
		return err
	}
	respond(sess, responder, out)
	return nil
}
