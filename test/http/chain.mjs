// Calls a real PostgREST with @supabase/postgrest-js, and the gateway in front of
// it with fetch. tools/check-http starts both and sets the environment. The last
// line is "N passed, N failed".
import { createHmac, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { PostgrestClient } from '@supabase/postgrest-js';

const { REST, GATEWAY, JWT_SECRET_FILE, CLIENT_SECRET } = process.env;
const secret = readFileSync(JWT_SECRET_FILE, 'utf8').trim();
let passed = 0;
let failed = 0;

function is(got, want, name) {
	if (isDeepStrictEqual(got, want)) {
		passed++;
		console.log(`ok - ${name}`);
		return;
	}
	failed++;
	console.log(`not ok - ${name}\n# got:  ${JSON.stringify(got)}\n# want: ${JSON.stringify(want)}`);
}

function token(claims) {
	const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
	const input = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ exp: Math.floor(Date.now() / 1000) + 300, ...claims })}`;
	return `${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`;
}

function client(claims) {
	return new PostgrestClient(REST, { schema: 'usage_billing', headers: claims ? { Authorization: `Bearer ${token(claims)}` } : {} });
}

const anonymous = client();
const service = client({ role: 'billing_service' });
const tenant = client({ role: 'billing_tenant', org_id: 'org-1' });
const foreign = client({ role: 'billing_tenant', org_id: 'org-2' });
const claimless = client({ role: 'billing_tenant' });
const usage = { id: randomUUID(), amount: 30, source: 'api', created_at: '2024-01-01T10:00:00Z' };

async function outcome(promise) {
	const { status, error } = await promise;
	return error ? `${status} ${error.code}` : `${status}`;
}

// The functions.
is((await service.rpc('create_billing_account', { org_id: 'org-1', billing_id: 'acct-1' })).data?.billing_id, 'acct-1', 'a composite is an object');
is(await outcome(service.rpc('create_billing_account', { org_id: 'org-2', billing_id: 'acct-2' })), '200', 'another account');
is((await service.rpc('grant_credits', { id: randomUUID(), amount: 100, billing_id: 'acct-1' })).data?.balance, 100, 'credits');
is((await tenant.rpc('create_usage', { usages: [usage] })).data, { balance: 70, created: 1, duplicates: 0 }, 'a tenant reports usage');
is((await tenant.rpc('create_usage', { usages: [usage] })).data, { balance: 70, created: 0, duplicates: 1 }, 'twice, and it counts once');
is((await tenant.rpc('account_balance')).data, { billing_id: 'acct-1', org_id: 'org-1', balance: 70, credit_min: 0, available: 70 }, 'the balance');
is((await tenant.rpc('account_balance', {}, { get: true })).data?.balance, 70, 'by GET');
is((await tenant.rpc('total_debited', { billing_id: 'acct-1' }, { get: true })).data, 30, 'a scalar');
is((await tenant.rpc('account_transactions', { max_rows: 5 }, { get: true })).data?.map((row) => row.kind).sort(), ['grant', 'usage'], 'a set');
is((await tenant.rpc('account_usage_trend', { from: '2024-01-01', to: '2024-01-02', filter: [{ field: 'resource', eq: 'vod_streams' }] })).data?.limits,
	{ resources: ['vod_streams'], from: '2024-01-01T00:00:00.000Z', to: '2024-01-02T00:00:00.000Z' }, 'a trend');
is((await tenant.rpc('usage_series', { from: '2024-01-01T00:00:00Z', to: '2024-01-02T00:00:00Z', bucket: 'day' }, { get: true })).data?.[0]?.amount, 30, 'a series');
is((await tenant.rpc('request_org')).data, 'org-1', 'who asks');
is(await outcome(tenant.rpc('refresh_storage_usage')), '200', 'storage');
is(await outcome(service.rpc('set_storage_limits', { org_id: 'org-1', max_video_count: 3 })), '204', 'void is no content');
is((await tenant.rpc('get_storage_usage')).data?.max_video_count, 3, 'which shows');

// Errors.
is(await outcome(anonymous.rpc('account_balance', { billing_id: 'acct-1' })), '401 42501', 'no token');
is(await outcome(claimless.rpc('account_balance', { billing_id: 'acct-1' })), '403 42501', 'a token without a claim');
is(await outcome(foreign.rpc('account_balance', { billing_id: 'acct-1' })), '403 42501', 'a foreign token');
is(await outcome(foreign.rpc('account_balance', { billing_id: 'none' })), '403 42501', 'and what does not exist');
is(await outcome(service.rpc('account_balance', { billing_id: 'none' })), '404 PT404', 'which a service is told');
is(await outcome(tenant.rpc('grant_credits', { id: randomUUID(), amount: 1 })), '403 42501', 'a tenant grants nothing');
is(await outcome(tenant.rpc('create_usage', { usages: [{ ...usage, amount: 31 }] })), '409 23505', 'an id with another payload');
is(await outcome(tenant.rpc('create_usage', { usages: [{ id: randomUUID(), amount: 71 }] })), '400 UB001', 'no credits left');
is(await outcome(tenant.rpc('create_usage', { usages: [{ id: randomUUID(), amount: -1 }] })), '400 22023', 'malformed input');
is(await outcome(service.rpc('refresh_storage_usage', { org_id: 'org-1' }, { get: true })), '405 25006', 'GET writes nothing');
is(await outcome(tenant.rpc('account_balance', { unknown: 1 })), '404 PGRST202', 'an unknown parameter');

// Rows.
is((await tenant.from('usage').select('id,amount').eq('source', 'api')).data, [{ id: usage.id, amount: 30 }], 'a tenant reads its usage');
is((await foreign.from('usage').select('id')).data, [], 'and nobody else\'s');
is((await tenant.from('usage_remaining').select('remaining').eq('id', usage.id)).data, [{ remaining: 30 }], 'what is left of it');
is((await tenant.from('account_statement').select('kind,amount').order('amount')).data, [{ kind: 'usage', amount: 30 }, { kind: 'grant', amount: 100 }], 'its statement');
is(await outcome(tenant.from('usage').insert({ billing_id: 'acct-1', id: randomUUID(), amount: 1 })), '403 42501', 'it writes none');
is(await outcome(tenant.from('billing_account').update({ credit_min: -1000 }).eq('billing_id', 'acct-1')), '403 42501', 'and changes none');
is(await outcome(tenant.from('usage_delta').select('*')), '403 42501', 'what is derived is not for it');
is(await outcome(anonymous.from('usage').select('*')), '401 42501', 'nothing is for anybody');

// The OpenAPI page of each role.
async function page(claims) {
	const response = await fetch(`${REST}/`, { headers: { Accept: 'application/openapi+json', ...(claims ? { Authorization: `Bearer ${token(claims)}` } : {}) } });
	return response.json();
}
const pages = { tenant: await page({ role: 'billing_tenant', org_id: 'org-1' }), service: await page({ role: 'billing_service' }) };
is(pages.tenant.paths?.['/rpc/create_usage']?.post?.summary, 'Reports usage of an account, and takes its credits from the balance', 'a summary');
is(/\nReturns \{"created"/.test(`\n${pages.tenant.paths?.['/rpc/create_usage']?.post?.description}`), true, 'a description');
is('/rpc/grant_credits' in (pages.tenant.paths ?? {}), false, 'a tenant is not shown what it may not call');
is('/rpc/grant_credits' in (pages.service.paths ?? {}), true, 'a service is');
is(pages.tenant.definitions?.usage?.properties?.amount?.description?.startsWith('credits, or what the feature'), true, 'columns are described');

// The original routes.
const basic = { Authorization: `Basic ${Buffer.from(`client-1:${CLIENT_SECRET}`).toString('base64')}`, 'Content-Type': 'application/json' };
const bearer = { Authorization: `Bearer ${token({ role: 'billing_tenant', org_id: 'org-1' })}` };
async function ask(method, path, headers, body) {
	const response = await fetch(GATEWAY + path, { method, headers, body });
	return [response.status, await response.json()];
}
const routes = '/v1beta1/organizations';
is(await ask('POST', `${routes}/billing/usages`, basic, JSON.stringify({ usages: [{ id: randomUUID(), amount: '5' }] })), [200, {}], 'create, with client id and secret');
is(await ask('POST', `${routes}/billing/usages/revert?org_id=org-1`, basic, JSON.stringify({ usage_id: usage.id, amount: '10' })), [200, {}], 'revert');
is((await ask('POST', `${routes}/org-2/billing/usages`, basic, '{"usages":[]}'))[0], 403, 'another organisation');
is((await ask('POST', `${routes}/billing/usages`, { ...basic, Authorization: 'Basic eDp5' }, '{}'))[0], 401, 'a wrong secret');
is((await ask('POST', `${routes}/billing/usages`, basic, '{"usages":5}'))[1].code, 3, 'an error in its shape');
is((await tenant.rpc('account_balance')).data?.balance, 75, 'and the balance');
is((await ask('POST', '/billing/v1/storage-usage/refresh', bearer))[1].org_id, 'org-1', 'refresh');
is((await ask('GET', '/billing/v1/storage-usage', bearer))[1].max_video_count, 3, 'storage usage');
is((await ask('GET', '/billing/v1/storage-usage/history?days=7', bearer))[1].length, 1, 'its history');
is((await ask('GET', '/usage/account?filter[0][field]=resource&filter[0][eq]=vod_streams&from=2024-01-01%2000:00:00&to=2024-01-02', bearer))[1].limits?.resources,
	['vod_streams'], 'a trend with a filter');
is((await ask('GET', '/usage/account?from=%22%7D', bearer))[0], 400, 'a hostile query string');
is((await ask('GET', '/usage/account', {}))[0], 401, 'no token');

console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
