// The phone's side of signing in another screen.

import { refusal } from './errors'
import type { RequestOptions } from './auth'
import type { Response } from './platform'
import { type Server, encode, formType } from './server'

/** Who wants to be signed in. Show it, and let the person choose. */
export interface Scan {
  /** A browser (`scan`), or a television or command line (`device`). */
  kind: 'scan' | 'device'
  client: string
  clientId?: string
  browser?: string
  place: string
  /** ms since 1970, by the server's clock. */
  startedAt: number
  /** Seconds that are left. */
  expiresIn: number
  scopes: string[]
  /** Three texts, of which the other screen shows one. */
  choices?: string[]
  /** There are no choices: the person types what the other screen shows. */
  numberEntry: boolean
  /** Phone and screen are in different networks. */
  warning?: 'other_network'
  /** Signs the other screen in. A wrong number is `ScanRefused` and ends the ticket. */
  approve(number: string): Promise<void>
  /** Refuses, and takes back an approval that was not taken up yet. */
  deny(): Promise<void>
}

export async function scan(server: Server, request: (options: RequestOptions) => Promise<Response>, scanned: string): Promise<Scan> {
  const ticket = decoded(scanned)

  async function ask(what: string, number?: string) {
    const answer = await request({
      url: `${server.issuer}/device/${what}`,
      method: 'POST',
      header: formType,
      timeout: 10000,
      data: encode({ ui_locales: server.language, ticket, number }),
    })
    // every answer of wxidp names the kind: another one, such as a captive portal's, decides nothing
    if (answer.statusCode !== 200 || !answer.data || !answer.data.kind) throw refusal(answer, server.language)
    return answer.data
  }

  const asks = await ask('context')
  return {
    kind: asks.kind,
    client: asks.client_name,
    clientId: asks.client_id,
    browser: asks.browser,
    place: asks.place,
    startedAt: asks.started_at * 1000,
    expiresIn: asks.expires_in,
    scopes: asks.scopes,
    choices: asks.choices,
    numberEntry: asks.number_entry,
    warning: asks.warning,
    approve: async (number) => { await ask('approve', number) },
    deny: async () => { await ask('deny') },
  }
}

/** WeChat hands over links and scenes percent-encoded. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch (error) {
    return text
  }
}
