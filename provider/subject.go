package provider

// subject is the sub that a client sees of a user.
func (p *Provider) subject(_ *snapshot, _ *Client, userID string) string { return userID }
