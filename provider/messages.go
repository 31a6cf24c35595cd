package provider

import "strings"

// Message is an error_description in the languages that mini-program
// developers read. Each says what to do next.
type Message struct{ EN, ZH string }

// In returns the text in the language of a BCP 47 tag; English unless the tag
// is Chinese.
func (m Message) In(lang string) string {
	if lang == "zh" || strings.HasPrefix(lang, "zh-") {
		return m.ZH
	}
	return m.EN
}

// with puts a value where {} stands. Values are our own words or numbers,
// never a client's text.
func (m Message) with(value string) Message {
	return Message{strings.ReplaceAll(m.EN, "{}", value), strings.ReplaceAll(m.ZH, "{}", value)}
}

var (
	msgServerError = Message{
		"Something went wrong on the server. The operator finds the details in the log under the X-Request-Id of this answer.",
		"服务器内部错误。请把响应头 X-Request-Id 交给运维人员查日志。"}
	msgBusy = Message{
		"The server did not finish in time. Try again.",
		"服务器未能及时完成，请稍后重试。"}
	msgOverloaded = Message{
		"The server is asked for more than it can do at the moment. Try again after the time in Retry-After.",
		"服务器当前请求过多，请在 Retry-After 指定的时间后重试。"}
	msgStorage = Message{
		"The server cannot reach its data or write to it at the moment. Try again later.",
		"服务器暂时无法读写数据，请稍后重试。"}
	msgInstead = Message{
		"The storage engine leaves this to the means of its database: {}.",
		"该存储引擎不提供此操作，请使用数据库自身的手段：{}。"}
	msgLimited = Message{
		"Too many requests. Wait as long as Retry-After says.",
		"请求过于频繁，请按 Retry-After 的秒数等待后重试。"}
	msgRequest = Message{
		"The request is malformed. Check its parameters.",
		"请求格式有误，请检查参数。"}
	msgFormPost = Message{
		"Send the parameters as an application/x-www-form-urlencoded body of at most 64 KiB, uncompressed, in UTF-8.",
		"请以不超过 64 KiB、未压缩、UTF-8 编码的 application/x-www-form-urlencoded 请求体提交参数。"}
	msgJSONBody = Message{
		"Send a JSON object (application/json) of at most 64 KiB with the members that this endpoint knows.",
		"请以 application/json 提交不超过 64 KiB 的 JSON 对象，且只包含该接口支持的字段。"}
	msgParamMissing = Message{
		"The form parameter {} is missing.",
		"缺少表单参数 {}。"}
	msgParamMalformed = Message{
		"The form parameter {} does not have the form it should have.",
		"表单参数 {} 的格式不正确。"}
	msgParamTwice = Message{
		"A form parameter is present more than once. Send each parameter once (RFC 6749 section 3.2).",
		"有表单参数重复出现，每个参数只能出现一次（RFC 6749 3.2 节）。"}
	msgQuery = Message{
		"Parameters belong in the request body, not in the URL: URLs end up in logs.",
		"参数必须放在请求体中，不能放在 URL 里（URL 会进入日志）。"}
	msgGrantUnknown = Message{
		"This server does not know that grant_type. The discovery document lists the ones it knows.",
		"不支持该 grant_type，可用的值见 discovery 文档。"}
	msgGrantForbidden = Message{
		"This client may not use that grant_type. The operator adds it to grant_types of the client.",
		"该客户端未被允许使用此 grant_type，请由运维人员在客户端的 grant_types 中添加。"}
	msgScopeMissing = Message{
		"The request names no scope and the client has no default_scopes. Send the scope parameter.",
		"请求没有 scope，且客户端没有配置 default_scopes，请传 scope 参数。"}
	msgScopeRefused = Message{
		"At least one of the requested scopes is not granted to this client.",
		"请求的 scope 中有该客户端未被授予的值。"}
	msgScopeWider = Message{
		"A refresh may narrow the scope and never widen it. Sign in again for more.",
		"刷新时只能缩小 scope，不能扩大；如需更多权限请重新登录。"}
	msgTarget = Message{
		"At least one of the requested audiences is not granted to this client.",
		"请求的 audience/resource 中有该客户端未被授予的值。"}
	msgClientAuth = Message{
		"Client authentication failed. Check client_id, the secret or assertion, and the authentication method configured for this client.",
		"客户端认证失败，请检查 client_id、密钥或断言，以及该客户端配置的认证方式。"}
	msgClientTwice = Message{
		"Use exactly one method of client authentication (RFC 6749 section 2.3).",
		"只能使用一种客户端认证方式（RFC 6749 2.3 节）。"}
	msgAssertionReplayed = Message{
		"This client assertion was used before. Make a new one with a new jti for each request.",
		"该客户端断言已被使用过，请为每次请求生成带新 jti 的断言。"}
	msgAssertionTooLong = Message{
		"This client assertion lives too long. Let exp be at most one hour ahead.",
		"该客户端断言的有效期过长，exp 最多为一小时之后。"}
	msgAssertionRestored = Message{
		"The server was restored from a backup and cannot tell whether this client assertion was used before. Make a new one, with the time of now as iat.",
		"服务器刚从备份恢复，无法判断该客户端断言是否已被使用过。请生成新的断言，并以当前时间作为 iat。"}
	msgParamForeign = Message{
		"This grant does not take the form parameter {}, or not from this client: a phone_code needs the scope phone or the grant wechat_phone in the client's configuration.",
		"该 grant_type 或该客户端不接受表单参数 {}：phone_code 需要客户端配置有 scope phone 或授权类型 wechat_phone。"}
	msgCodeUsed = Message{
		"This js_code was presented before. Call wx.login again and send the new code once.",
		"该 js_code 已提交过。请重新调用 wx.login，并且每个 code 只提交一次。"}
	msgCodeRefused = Message{
		"WeChat refused the js_code (errcode {}). Call wx.login again and send the new code at once; if it keeps failing, check that the mini-program's appid is the one configured for this client.",
		"微信拒绝了该 js_code（errcode {}）。请重新调用 wx.login 并立即提交新的 code；若持续失败，请检查小程序的 appid 与该客户端配置的是否一致。"}
	msgPhoneCodeUsed = Message{
		"This phone_code was presented before. Let the user tap the phone number button again and send the new code once.",
		"该 phone_code 已提交过。请让用户重新点击获取手机号按钮，并且每个 code 只提交一次。"}
	msgPhoneCodeRefused = Message{
		"WeChat refused the phone_code, or it is not of this user and mini-program, or too old. Let the user tap the phone number button again, call wx.login again, and send both new codes at once.",
		"微信拒绝了该 phone_code，或它不属于该用户和小程序，或已过期。请让用户重新点击获取手机号按钮并重新调用 wx.login，立即提交两个新的 code。"}
	msgWrongCredentials = Message{
		"Username or password is wrong. The js_code is spent: call wx.login again before the next try.",
		"用户名或密码错误。该 js_code 已使用，重试前请重新调用 wx.login。"}
	msgAccountChanged = Message{
		"The account has changed at this moment. Call wx.login and try again.",
		"账号信息刚刚发生变化，请重新调用 wx.login 再试。"}
	msgWrongPassword = Message{
		"Username or password is wrong, or of another account than the access token's.",
		"用户名或密码错误，或不属于该 access_token 的账号。"}
	msgPasswordLimited = Message{
		"Too many wrong passwords. Wait as long as Retry-After says; the right password is not taken before either.",
		"密码错误次数过多。请按 Retry-After 的秒数等待；在此之前正确的密码也不会被接受。"}
	msgPasswordBusy = Message{
		"Too many passwords are being checked at the moment. Wait as long as Retry-After says, then call wx.login and try again.",
		"当前校验密码的请求过多。请按 Retry-After 等待后重新调用 wx.login 再试。"}
	msgVerifierDown = Message{
		"The product's account system did not answer properly, which says nothing about the password. Wait as long as Retry-After says, then call wx.login and try again.",
		"产品的账号系统未正常响应（与密码是否正确无关）。请按 Retry-After 等待后重新调用 wx.login 再试。"}
	msgAccountRequired = Message{
		"No account is bound to this WeChat user. Ask for username and password, call wx.login again, and send all three.",
		"该微信用户尚未绑定账号。请让用户输入用户名和密码，重新调用 wx.login，并将三者一起提交。"}
	msgIdentityBound = Message{
		"This WeChat user belongs to another account already. Unbind it there first, or sign in without username and password.",
		"该微信用户已绑定其他账号。请先在原账号解绑，或不带用户名和密码直接登录。"}
	msgAccountBound = Message{
		"This account has another WeChat user of this mini-program already. Unbind that one first.",
		"该账号已绑定此小程序的另一个微信用户，请先解绑。"}
	msgPhoneTaken = Message{
		"An account with this phone number exists, and a number alone does not open it. Sign in as you did before, or bind it by username and password; support can merge accounts.",
		"该手机号已有账号，仅凭手机号不能打开它。请使用原来的方式登录，或用用户名和密码绑定；也可联系客服合并账号。"}
	msgUnbindProof = Message{
		"Prove afresh who you are: send a js_code of wx.login, or username and password, and not both.",
		"请重新证明身份：提交 wx.login 的 js_code，或用户名和密码，二者只能选一。"}
	msgOtherUser = Message{
		"The js_code is not of the user of the access token. Call wx.login again on the device that is signed in.",
		"该 js_code 不属于此 access_token 的用户。请在已登录的设备上重新调用 wx.login。"}
	msgNotBound = Message{
		"The account has no WeChat user of that mini-program.",
		"该账号没有绑定此小程序的微信用户。"}
	msgLastWayIn = Message{
		"This is the only way into the account, and removing it would lock the user out. Bind an account with a username and password first.",
		"这是登录该账号的唯一方式，解绑后将无法登录。请先绑定带用户名和密码的账号。"}
	msgMockCode = Message{
		"This is the developer tool's mock code. Open the project with a real appid and call wx.login again.",
		"这是开发者工具的模拟 code。请使用真实 appid 打开项目后重新调用 wx.login。"}
	msgUserDenied = Message{
		"WeChat does not let this user sign in (errcode {}). Do not retry.",
		"微信限制该用户登录（errcode {}），请勿重试。"}
	msgUserDisabled = Message{
		"This account is disabled. Do not retry; the user may contact support.",
		"该账号已停用，请勿重试；用户可联系客服。"}
	msgQuota = Message{
		"WeChat's quota for this mini-program is used up (errcode {}). Wait as long as Retry-After says, then call wx.login again.",
		"该小程序的微信接口额度已用尽（errcode {}）。请按 Retry-After 等待后重新调用 wx.login。"}
	msgWeChatDown = Message{
		"WeChat did not answer properly. Wait as long as Retry-After says, then call wx.login again; the old code may be spent.",
		"微信服务未正常响应。请按 Retry-After 等待后重新调用 wx.login，旧的 code 可能已失效。"}
	msgWeChatConfig = Message{
		"WeChat rejected this server's own request (errcode {}). The operator must check the app's configuration.",
		"微信拒绝了服务器的请求（errcode {}），请由运维人员检查该小程序的配置。"}
	msgIdempotencyKey = Message{
		"The Idempotency-Key header must be 1 to 255 visible ASCII characters, sent once.",
		"Idempotency-Key 请求头必须是 1 到 255 个可见 ASCII 字符，且只能出现一次。"}
	msgIdempotencyForm = Message{
		"This Idempotency-Key was used with other parameters. Use a new key for each new request.",
		"该 Idempotency-Key 已用于参数不同的请求，请为每个新请求使用新的值。"}
	msgIdempotencyMoved = Message{
		"The first request with this Idempotency-Key succeeded and its tokens have been used since. Use the tokens you have, or call wx.login again.",
		"该 Idempotency-Key 的首次请求已成功，且其令牌已被使用。请使用已有令牌，或重新调用 wx.login。"}
	msgRefreshInvalid = Message{
		"The refresh token is expired, revoked, used up or not one of this client's. Call wx.login and sign in again.",
		"refresh_token 已过期、被撤销、已使用或不属于该客户端。请调用 wx.login 重新登录。"}
	msgTokenMissing = Message{
		"The form parameter token is missing.",
		"缺少表单参数 token。"}
	msgLogoutClient = Message{
		"client_id is not the client that the ID Token in id_token_hint was issued to. Send both of one client, or leave client_id out.",
		"client_id 与 id_token_hint 中 ID Token 所属的客户端不一致。请传同一客户端的两个参数，或不传 client_id。"}
	msgIntrospectionForbidden = Message{
		"This client may not introspect tokens. The operator sets introspection: true for it.",
		"该客户端没有 introspection 权限，请由运维人员为其设置 introspection: true。"}
	msgDPoPMissing = Message{
		"Send a DPoP proof in the header DPoP (RFC 9449): this client, sign-in or access token needs one.",
		"请在请求头 DPoP 中携带 DPoP 证明（RFC 9449）：该客户端、登录或 access_token 需要它。"}
	msgDPoPProof = Message{
		"The DPoP proof is malformed or not for this request. Send one header DPoP with a new JWT of typ dpop+jwt for each request, its public key as jwk, and jti, htm, htu, iat, with an access token also ath.",
		"DPoP 证明格式有误或不是针对该请求的。请为每个请求只发送一个 DPoP 请求头，内容为新生成的 typ 为 dpop+jwt 的 JWT，公钥放在 jwk 中，并包含 jti、htm、htu、iat，携带 access_token 时还需 ath。"}
	msgDPoPTime = Message{
		"The DPoP proof is too old or from the future. Make a new one for each request, and check the clock: the Date of this answer is the server's.",
		"DPoP 证明已过期或时间在未来。请为每个请求重新生成，并检查时钟：服务器时间见本响应的 Date。"}
	msgDPoPReplayed = Message{
		"This DPoP proof was used before. Make a new one with a new jti for each request.",
		"该 DPoP 证明已被使用过，请为每个请求生成带新 jti 的证明。"}
	msgDPoPNonce = Message{
		"Make a new DPoP proof with the nonce that the header DPoP-Nonce of this answer gives, and repeat the request.",
		"请用本响应的 DPoP-Nonce 请求头给出的 nonce 生成新的 DPoP 证明，然后重发请求。"}
	msgDPoPOtherKey = Message{
		"The DPoP proof is by another key than the one that the token is bound to or dpop_jkt names. Use that key; if it is lost, sign in again.",
		"DPoP 证明使用的密钥不是该令牌绑定的或 dpop_jkt 指定的密钥。请使用该密钥；若已丢失，请重新登录。"}
	msgDPoPBound = Message{
		"The access token is bound to a key. Send it as Authorization: DPoP ... with a DPoP proof.",
		"该 access_token 绑定了密钥。请以 Authorization: DPoP ... 发送，并携带 DPoP 证明。"}
	msgDPoPUnbound = Message{
		"The access token is not bound to a key. Send it as Authorization: Bearer ...",
		"该 access_token 未绑定密钥。请以 Authorization: Bearer ... 发送。"}
	msgBearerMissing = Message{
		"Send the access token in the header: Authorization: Bearer ...",
		"请在请求头中携带访问令牌：Authorization: Bearer ..."}
	msgBearerInvalid = Message{
		"The access token is expired, revoked or not one of this server's. Refresh it or sign in again.",
		"access_token 已过期、被撤销或不是本服务器签发的。请刷新或重新登录。"}
	msgBearerScope = Message{
		"The access token lacks the scope {}.",
		"access_token 缺少 {} 权限。"}
	msgAccountBody = Message{
		"Send a JSON object (application/json) with nickname, picture or both, and nothing else.",
		"请以 application/json 提交只包含 nickname 和/或 picture 的 JSON 对象。"}
	msgAccountValue = Message{
		"The value of {} is not acceptable: a nickname has 1 to 64 characters without control characters, a picture is an https URL of at most 2048 bytes or empty.",
		"{} 的值不符合要求：昵称为 1 到 64 个字符且不含控制字符；头像为不超过 2048 字节的 https URL，或为空。"}
	msgWeChatDataForbidden = Message{
		"This client may not use WeChat data. The operator adds the scope wechat.data to it.",
		"该客户端没有使用微信数据的权限，请由运维人员为其添加 wechat.data scope。"}
	msgUserTokenInvalid = Message{
		"The form parameter access_token is not an active access token of a WeChat user for this client's audience. Let the mini-program refresh it or sign in again.",
		"表单参数 access_token 不是以该客户端 audience 为受众的微信用户的有效 access_token。请让小程序刷新或重新登录。"}
	msgOpenData = Message{
		"The data cannot be decrypted, or is not of this user, this mini-program and the last 10 minutes. Get it from WeChat anew, send encryptedData and iv exactly as they came (form-encode the + in them), and call wx.login before and not after getting the data.",
		"数据无法解密，或不属于该用户、该小程序，或不是最近 10 分钟内的。请重新从微信获取，原样提交 encryptedData 和 iv（其中的 + 需做表单编码），并在获取数据之前而不是之后调用 wx.login。"}
	msgSessionKeyExpired = Message{
		"The user's WeChat session_key has expired or been replaced. Let the mini-program call wx.login, sign in with the new js_code, then get the data anew.",
		"该用户的微信 session_key 已过期或已更换。请让小程序调用 wx.login 并用新的 js_code 重新登录，然后重新获取数据。"}
	msgWeChatDataDown = Message{
		"WeChat did not answer properly, so that it is not known what is wrong. Wait as long as Retry-After says, then send the same request again.",
		"微信服务未正常响应，暂时无法判断原因。请按 Retry-After 等待后重新提交相同的请求。"}
	msgTicketExpired = Message{
		"This code is unknown or has expired. Get a new one on the other screen and scan again.",
		"该码不存在或已过期。请在另一块屏幕上刷新后重新扫描。"}
	msgTicketUsed = Message{
		"This code has been used. Get a new one on the other screen and scan again.",
		"该码已使用过。请在另一块屏幕上刷新后重新扫描。"}
	msgTicketTaken = Message{
		"Somebody else has scanned this code, so that it is void now. Get a new one on your own screen.",
		"该码已被其他人扫描，现已作废。请在自己的屏幕上获取新的码。"}
	msgTicketUnseen = Message{
		"Show the person first who asks: call the context endpoint with this ticket, then approve.",
		"请先向用户展示请求方：用该 ticket 调用 context 接口，然后再确认。"}
	msgNotPhone = Message{
		"Only a mini-program can approve what happens on other screens, with an access token of a sign-in through WeChat.",
		"只有小程序可以确认其他屏幕上的登录，并且需要通过微信登录得到的 access_token。"}
	msgWrongNumber = Message{
		"That is not the number on the other screen, so that this code is void now. If you are not signing in anywhere, somebody may have sent you their code: do not scan it again.",
		"所选数字与另一块屏幕上的不一致，该码已作废。如果你并没有在别处登录，可能有人把他的码发给了你，请不要再次扫描。"}
	msgScanOff = Message{
		"Nobody can sign in by scanning here. The operator sets scan.appid.",
		"此处未启用扫码登录，请由运维人员配置 scan.appid。"}
	msgScanMissing = Message{
		"This code is not of this browser, or is long gone. Get a new one.",
		"该码不属于此浏览器，或早已失效，请重新获取。"}
	msgDevicePending = Message{
		"The person has not decided yet. Ask again after the interval.",
		"用户尚未确认。请按 interval 间隔后再次查询。"}
	msgDeviceSlowDown = Message{
		"You ask too often. Add 5 seconds to the interval and ask again.",
		"查询过于频繁。请将间隔增加 5 秒后再次查询。"}
	msgDeviceExpired = Message{
		"The device_code has expired. Ask for a new one.",
		"device_code 已过期，请重新获取。"}
	msgDeviceDenied = Message{
		"The person has refused, or chose a wrong number. Do not ask again with this device_code.",
		"用户已拒绝，或选择了错误的数字。请勿再使用该 device_code 查询。"}
	msgDeviceInvalid = Message{
		"The device_code is unknown, used up or not one of this client's. Ask for a new one.",
		"device_code 不存在、已使用或不属于该客户端，请重新获取。"}
	msgUserCodeUnknown = Message{
		"No device waits for this code. Check it, or get a new one on the device.",
		"没有设备在等待此代码。请检查输入，或在设备上获取新的代码。"}
)
