package provider

// What the authorization endpoint and its pages say.
var (
	msgAddress = Message{
		"The address of this page is too long or damaged. Go back to the application and start again.",
		"页面地址过长或已损坏。请回到应用重新开始。"}
	msgUnknownClient = Message{
		"The application that sent you here is not known, or may not let people sign in with a browser. Check client_id and its grant_types.",
		"跳转来源的应用未登记，或未被允许使用浏览器登录。请检查 client_id 及其 grant_types。"}
	msgRedirectURI = Message{
		"The application asked to send you back to an address that is not registered for it. redirect_uri must be one of its redirect_uris, character by character.",
		"应用请求跳回的地址未登记。redirect_uri 必须与其 redirect_uris 中的某一项逐字符相同。"}
	msgAuthRequestLong = Message{
		"The authorization request is too long: at most 12 KiB.",
		"授权请求过长，最多 12 KiB。"}
	msgRequestObject = Message{
		"Request objects and references to them are not supported. Send the parameters themselves, or push them first (RFC 9126).",
		"不支持 request 对象及其引用。请直接传参数，或先推送授权请求（RFC 9126）。"}
	msgPushedRequest = Message{
		"This request_uri is unknown, expired, used, or another client's. Push the authorization request again.",
		"该 request_uri 不存在、已过期、已使用或属于其他客户端，请重新推送授权请求。"}
	msgPushedRequired = Message{
		"This client must push its authorization requests (RFC 9126).",
		"该客户端必须先推送授权请求（RFC 9126）。"}
	msgResponseType = Message{
		"The only response_type is code.",
		"response_type 只支持 code。"}
	msgResponseMode = Message{
		"The response_mode is query or form_post.",
		"response_mode 只支持 query 和 form_post。"}
	msgRegistration = Message{
		"Clients are registered by the operator; the parameter registration is not supported.",
		"客户端由运维人员登记，不支持 registration 参数。"}
	msgPKCEMissing = Message{
		"Send code_challenge with code_challenge_method=S256 (RFC 7636).",
		"请传 code_challenge，且 code_challenge_method=S256（RFC 7636）。"}
	msgPKCEMethod = Message{
		"The only code_challenge_method is S256.",
		"code_challenge_method 只支持 S256。"}
	msgPromptNone = Message{
		"prompt=none cannot be combined with other values.",
		"prompt=none 不能与其他值同时使用。"}
	msgHint = Message{
		"The id_token_hint is not an ID Token that this server issued to this client.",
		"id_token_hint 不是本服务器签发给该客户端的 ID Token。"}
	msgLoginRequired = Message{
		"Nobody suitable is signed in, and prompt=none forbids to ask.",
		"当前没有符合要求的登录用户，而 prompt=none 不允许询问。"}
	msgOtherAccount = Message{
		"Somebody else signed in than the one whom id_token_hint or the claims parameter names.",
		"登录的用户与 id_token_hint 或 claims 参数指定的用户不同。"}
	msgSelectionRequired = Message{
		"The user must choose an account, and prompt=none forbids to ask.",
		"需要用户选择账号，而 prompt=none 不允许询问。"}
	msgConsentRequired = Message{
		"The user has not agreed to all of this, and prompt=none forbids to ask.",
		"用户尚未同意全部授权，而 prompt=none 不允许询问。"}
	msgDenied = Message{
		"The user has declined.",
		"用户已拒绝。"}
	msgACR = Message{
		"None of the essential authentication context classes can be met.",
		"无法满足必需的认证级别（acr）。"}
	msgInteraction = Message{
		"This sign-in has expired, is finished, or began in another browser. Go back to the application and start again.",
		"此次登录已过期、已完成，或是在其他浏览器中开始的。请回到应用重新开始。"}
	msgFormExpired = Message{
		"This form is not of this browser or has expired. Go back, reload the page and try again.",
		"表单不属于当前浏览器或已过期。请返回并刷新页面后重试。"}
	msgPagePassword = Message{
		"Username or password is wrong.",
		"用户名或密码错误。"}
	msgPagePasswordLimited = Message{
		"Too many wrong passwords. Wait some minutes, or sign in another way.",
		"密码错误次数过多。请等几分钟，或换一种方式登录。"}
	msgPageBusy = Message{
		"Too many people are signing in at this moment, or somebody to this very account. Try again.",
		"当前登录人数过多，或正有人在登录同一账号，请重试。"}
	msgPageAccountDown = Message{
		"The account system does not answer at the moment, which says nothing about your password. Try again, or sign in another way.",
		"账号系统暂时没有响应（与密码是否正确无关）。请稍后重试，或换一种方式登录。"}
	msgPageDisabled = Message{
		"This account is disabled. Support can help.",
		"该账号已停用，请联系客服。"}
	msgCodeInvalid = Message{
		"The authorization code is unknown, expired, used, or was presented with another redirect_uri, code_verifier, key or client than it was issued for. Start a new authorization request.",
		"授权码不存在、已过期、已使用，或提交时的 redirect_uri、code_verifier、密钥或客户端与签发时不同。请重新发起授权请求。"}
)
