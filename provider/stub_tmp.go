package provider

import (
	"context"

	"github.com/wxidp/wxidp/storage"
)

func (p *Provider) wakeLogouts() {}
func (p *Provider) describeScan(context.Context, Request, *openInteraction, *InteractionView) error {
	return nil
}
func (p *Provider) describeDevice(context.Context, Request, *openInteraction, *storage.LoginSession, *InteractionView) error {
	return nil
}
func (p *Provider) allowDevice(context.Context, Request, *acting) (Next, error) { return Next{}, nil }
func (p *Provider) denyDevice(context.Context, Request, *acting) (Next, error)  { return Next{}, nil }
