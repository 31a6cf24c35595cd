// Short forms of what the tests do with openid-client.

import * as client from 'openid-client';

/**
 * Discovers the issuer on behalf of a client. Unless verify is false,
 * openid-client itself verifies the signature of every ID Token too.
 */
export function discover(issuer, clientID, { metadata, auth, edit, verify = true } = {}) {
  return client.discovery(new URL(issuer), clientID, metadata, auth ?? client.None(), {
    // Plain http is for loopback; nobody can listen in there.
    execute: [client.allowInsecureRequests, ...(verify ? [client.enableNonRepudiationChecks] : [])],
    ...(edit && { [client.customFetch]: (url, options) => fetch(url, edit(options)) }),
  });
}

/** Adds request headers to every request of a configuration. */
export function withHeaders(headers) {
  return (options) => ({ ...options, headers: { ...options.headers, ...headers } });
}

/** Signs a user in by js_code. */
export function signIn(config, jsCode, parameters = {}) {
  return client.genericGrantRequest(config, 'wechat_jscode', { js_code: jsCode, ...parameters });
}

/** Signs a user in by js_code and phone_code. */
export function phoneSignIn(config, jsCode, phoneCode, parameters = {}) {
  return client.genericGrantRequest(config, 'wechat_phone', { js_code: jsCode, phone_code: phoneCode, ...parameters });
}

/** Returns the OAuth error that a request ends with; request is not started before. */
export async function refusal(request) {
  try {
    await request();
  } catch (err) {
    if (err instanceof client.ResponseBodyError) return err;
    throw err;
  }
  throw new Error('the request succeeded');
}
