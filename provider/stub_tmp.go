package provider

func (p *Provider) wakeLogouts() {}
