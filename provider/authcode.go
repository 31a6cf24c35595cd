package provider

// GrantAuthorizationCode is the grant_type that redeems an authorization code
// (RFC 6749 §4.1.3).
const GrantAuthorizationCode = "authorization_code"
