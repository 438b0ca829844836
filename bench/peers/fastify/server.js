// The service in Fastify: pg, undici, providers concurrently, two processes.
import cluster from 'node:cluster'
import { createHash } from 'node:crypto'
import Fastify from 'fastify'
import pg from 'pg'
import { Agent, request } from 'undici'

const ACCOUNT_ID =
  /^([0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}|0{8}-(0{4}-){3}0{12}|f{8}-(f{4}-){3}f{12})$/i
// A name makes pg prepare a statement once per connection.
const FIND_KEY = {
  name: 'key',
  text: 'SELECT user_id FROM api_keys WHERE sha256 = $1 AND revoked_at IS NULL'
}
const FIND_ACCOUNT = {
  name: 'account',
  text: `SELECT id, type, status, provider_account_id, email_address, agentmail_inbox_id,
         instantly_account_id FROM accounts WHERE id = $1 AND user_id = $2`
}
const SOFT_DELETE = {
  name: 'soft',
  text: "UPDATE accounts SET status = 'disconnected', updated_at = now() WHERE id = $1"
}
const HARD_DELETE = { name: 'hard', text: 'DELETE FROM accounts WHERE id = $1' }

const env = process.env
const pool = new pg.Pool({ connectionString: env.DATABASE_URL, max: 20 })
const dispatcher = new Agent({ headersTimeout: 10_000, bodyTimeout: 10_000 })
const app = Fastify({ logger: { level: 'warn' } })

const query = (statement, ...values) => pool.query({ ...statement, values })

async function call (provider, method, path, body) {
  const name = provider.toUpperCase()
  const key = env[`${name}_API_KEY`]
  const headers = provider === 'unipile' ? { 'x-api-key': key } : { authorization: `Bearer ${key}` }
  if (body) headers['content-type'] = 'application/json'
  try {
    const options = { dispatcher, method, headers, body: body && JSON.stringify(body) }
    const answer = await request(env[`${name}_BASE_URL`] + path, options)
    await answer.body.dump()
    if (answer.statusCode >= 300) throw new Error(`answered ${answer.statusCode}`)
  } catch (error) {
    app.log.warn({ provider, error: error.message })
  }
}

async function leaveInstantly (account) {
  const emails = { emails: [account.email_address] }
  await call('instantly', 'POST', '/api/v2/accounts/warmup/disable', emails)
  const id = encodeURIComponent(account.instantly_account_id)
  await call('instantly', 'DELETE', `/api/v2/accounts/${id}`)
}

async function leaveProviders (account) {
  if (account.type === 'linkedin') {
    if (account.status === 'disconnected') return HARD_DELETE
    await call('unipile', 'DELETE', `/accounts/${encodeURIComponent(account.provider_account_id)}`)
    return SOFT_DELETE
  }
  const inbox = account.agentmail_inbox_id
  await Promise.all([
    account.instantly_account_id && leaveInstantly(account),
    inbox && call('agentmail', 'DELETE', `/v0/inboxes/${encodeURIComponent(inbox)}`)
  ])
  return HARD_DELETE
}

const problem = (reply, status, error) =>
  reply.code(status).type('application/problem+json')
    .send(JSON.stringify({ type: 'about:blank', title: error, status, error }))

async function authenticate (request) {
  const [scheme, key = ''] = (request.headers.authorization ?? '').split(' ', 2)
  const found = await query(FIND_KEY, createHash('sha256').update(key).digest('hex'))
  return scheme === 'Bearer' ? found.rows[0]?.user_id : undefined
}

app.delete('/api/accounts/:id', async (request, reply) => {
  const user = await authenticate(request)
  if (!user) return problem(reply, 401, 'unauthorized')
  if (!ACCOUNT_ID.test(request.params.id)) return problem(reply, 400, 'invalid_account_id')
  const { rows: [account] } = await query(FIND_ACCOUNT, request.params.id, user)
  if (!account) return problem(reply, 404, 'account_not_found')
  await query(await leaveProviders(account), account.id)
  return { success: true }
})

if (cluster.isPrimary) {
  for (let worker = 0; worker < 2; worker++) cluster.fork()
  process.on('SIGTERM', () => process.exit(0))
} else {
  process.on('disconnect', () => process.exit(0))
  await app.listen({ host: '127.0.0.1', port: Number(env.PORT) })
}
