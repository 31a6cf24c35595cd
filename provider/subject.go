package provider

func (p *Provider) subject(_ *snapshot, _ *Client, userID string) string { return userID }
