package provider

import "encoding/json"

// metadata is the discovery document (OIDC Discovery §3, RFC 8414 §2). It
// announces what works and nothing else.
type metadata struct {
	Issuer                string   `json:"issuer"`
	AuthorizationEndpoint string   `json:"authorization_endpoint"`
	PushedEndpoint        string   `json:"pushed_authorization_request_endpoint"`
	TokenEndpoint         string   `json:"token_endpoint"`
	DeviceEndpoint        string   `json:"device_authorization_endpoint"`
	EndSessionEndpoint    string   `json:"end_session_endpoint"`
	JWKSURI               string   `json:"jwks_uri"`
	UserInfoEndpoint      string   `json:"userinfo_endpoint"`
	RevocationEndpoint    string   `json:"revocation_endpoint"`
	IntrospectionEndpoint string   `json:"introspection_endpoint"`
	ScopesSupported       []string `json:"scopes_supported"`
	ResponseTypes         []string `json:"response_types_supported"`
	ResponseModes         []string `json:"response_modes_supported"`
	PromptValues          []string `json:"prompt_values_supported"`
	ACRValues             []string `json:"acr_values_supported"`
	ChallengeMethods      []string `json:"code_challenge_methods_supported"`
	DPoPAlgs              []string `json:"dpop_signing_alg_values_supported"`
	GrantTypes            []string `json:"grant_types_supported"`
	SubjectTypes          []string `json:"subject_types_supported"`
	IDTokenAlgs           []string `json:"id_token_signing_alg_values_supported"`
	TokenAuthMethods      []string `json:"token_endpoint_auth_methods_supported"`
	TokenAuthAlgs         []string `json:"token_endpoint_auth_signing_alg_values_supported"`
	RevocationMethods     []string `json:"revocation_endpoint_auth_methods_supported"`
	RevocationAlgs        []string `json:"revocation_endpoint_auth_signing_alg_values_supported"`
	IntrospectionMethods  []string `json:"introspection_endpoint_auth_methods_supported"`
	IntrospectionAlgs     []string `json:"introspection_endpoint_auth_signing_alg_values_supported"`
	ClaimsSupported       []string `json:"claims_supported"`
	UILocales             []string `json:"ui_locales_supported"`
	ClaimTypes            []string `json:"claim_types_supported"`
	DisplayValues         []string `json:"display_values_supported"`
	ClaimsParameter       bool     `json:"claims_parameter_supported"`
	RequestParameter      bool     `json:"request_parameter_supported"`
	RequestURIParameter   bool     `json:"request_uri_parameter_supported"`
	// RequestObjectAlgs has no "none" in it: the honest way to say that not
	// even unsigned request objects are taken.
	RequestObjectAlgs    []string `json:"request_object_signing_alg_values_supported"`
	ResponseIssuer       bool     `json:"authorization_response_iss_parameter_supported"` // RFC 9207 §3
	BackchannelLogout    bool     `json:"backchannel_logout_supported"`
	BackchannelSessionID bool     `json:"backchannel_logout_session_supported"`

	// wxidp's own endpoints (RFC 8414 §2 allows further members).
	AccountEndpoint         string `json:"account_endpoint"`
	UnbindEndpoint          string `json:"account_unbind_endpoint"`
	DecryptEndpoint         string `json:"wechat_decrypt_endpoint"`
	VerifySignatureEndpoint string `json:"wechat_verify_signature_endpoint"`
	CheckSessionEndpoint    string `json:"wechat_check_session_endpoint"`
	ResetSessionEndpoint    string `json:"wechat_reset_session_endpoint"`
	DeviceContextEndpoint   string `json:"device_context_endpoint"`
	DeviceApproveEndpoint   string `json:"device_approve_endpoint"`
	DeviceDenyEndpoint      string `json:"device_deny_endpoint"`
}

// Metadata returns the discovery document, which is the same bytes for OpenID
// Connect Discovery and for RFC 8414.
func (p *Provider) Metadata() ([]byte, error) {
	confidential := []string{AuthClientSecretBasic, AuthClientSecretPost, AuthPrivateKeyJWT}
	withNone := append([]string{AuthNone}, confidential...)
	return json.Marshal(metadata{
		Issuer:                p.issuer,
		AuthorizationEndpoint: p.issuer + PathAuthorize,
		PushedEndpoint:        p.issuer + PathPushed,
		TokenEndpoint:         p.issuer + PathToken,
		DeviceEndpoint:        p.issuer + PathDeviceAuthorization,
		EndSessionEndpoint:    p.issuer + PathEndSession,
		JWKSURI:               p.issuer + PathJWKS,
		UserInfoEndpoint:      p.issuer + PathUserInfo,
		RevocationEndpoint:    p.issuer + PathRevocation,
		IntrospectionEndpoint: p.issuer + PathIntrospection,
		ScopesSupported:       []string{scopeOpenID, scopeProfile, scopePhone, scopeWeChat, scopeRoles, scopeExternalID, scopeOfflineAccess, ScopeWeChatData, ScopeDeviceApprove},
		ResponseTypes:         []string{"code"},
		ResponseModes:         []string{modeQuery, modeFormPost},
		PromptValues:          []string{promptNone, promptLogin, promptConsent, promptSelectAccount},
		ACRValues:             []string{acrPassword, acrScan},
		ChallengeMethods:      []string{"S256"},
		DPoPAlgs:              dpopAlgs(),
		GrantTypes:            p.GrantTypes(),
		SubjectTypes:          []string{"public", "pairwise"},
		IDTokenAlgs:           p.keys.Algorithms(),
		TokenAuthMethods:      withNone,
		TokenAuthAlgs:         AssertionAlgs(),
		RevocationMethods:     withNone,
		RevocationAlgs:        AssertionAlgs(),
		IntrospectionMethods:  confidential,
		IntrospectionAlgs:     AssertionAlgs(),
		ClaimsSupported: []string{
			"iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "acr", "amr", "at_hash", "sid",
			"name", "nickname", "picture", "updated_at", "preferred_username", "given_name", "family_name", "middle_name",
			"profile", "website", "gender", "birthdate", "zoneinfo", "locale", "phone_number", "phone_number_verified",
			"roles", "external_id", "wechat_openid", "wechat_unionid", "wechat_appid",
		},
		UILocales:            []string{"zh-CN", "en"},
		ClaimTypes:           []string{"normal"},
		DisplayValues:        []string{"page"},
		ClaimsParameter:      true,
		RequestObjectAlgs:    []string{"RS256"},
		ResponseIssuer:       true,
		BackchannelLogout:    true,
		BackchannelSessionID: true,

		AccountEndpoint:         p.issuer + PathAccount,
		UnbindEndpoint:          p.issuer + PathUnbind,
		DecryptEndpoint:         p.issuer + PathWeChatDecrypt,
		VerifySignatureEndpoint: p.issuer + PathWeChatVerifySignature,
		CheckSessionEndpoint:    p.issuer + PathWeChatCheckSession,
		ResetSessionEndpoint:    p.issuer + PathWeChatResetSession,
		DeviceContextEndpoint:   p.issuer + PathDeviceContext,
		DeviceApproveEndpoint:   p.issuer + PathDeviceApprove,
		DeviceDenyEndpoint:      p.issuer + PathDeviceDeny,
	})
}
