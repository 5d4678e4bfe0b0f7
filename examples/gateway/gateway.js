/*
 * The routes that clients of the three services already speak, as calls of
 * PostgREST functions. Nothing of a client's URL reaches PostgREST: every
 * parameter travels as a string in a JSON body that is built here, and the
 * columns below are all that PostgREST takes out of a body.
 *
 * A body of the client's is never parsed, because JSON.parse would round large
 * integers. What the URL says is appended to it; of two keys with one name
 * PostgreSQL's json takes the last.
 */

/* HTTP status to the gRPC code that the first service's errors carry. */
const grpcCodes = {
	400: 3, 401: 16, 403: 7, 404: 5, 405: 12, 409: 6, 413: 3, 429: 8, 502: 14, 503: 14, 504: 4
};

/* A client's mistake that is found here. */
function BadRequest(message) {
	this.badRequest = message;
}

function decode(text) {
	try {
		return decodeURIComponent(text);
	} catch (e) {
		throw new BadRequest('the URL is not valid UTF-8 in percent-encoding');
	}
}

/* The query string as a list of [name, value], in its order. */
function queryPairs(r) {
	const args = r.variables.args;

	if (!args) {
		return [];
	}
	return args.split('&').filter((part) => part !== '').map((part) => {
		const at = part.indexOf('=');
		const name = at < 0 ? part : part.slice(0, at);
		const value = at < 0 ? '' : part.slice(at + 1);

		return [decode(name.replace(/\+/g, ' ')), decode(value.replace(/\+/g, ' '))];
	});
}

/* Those parameters of the query string that are named, as [name, value]. */
function namedPairs(pairs, names) {
	const found = pairs.filter((pair) => names.indexOf(pair[0]) >= 0);

	found.forEach((pair, i) => {
		if (found.slice(0, i).some((other) => other[0] === pair[0])) {
			throw new BadRequest('the parameter ' + pair[0] + ' is given twice');
		}
	});
	return found;
}

function member(pair) {
	return JSON.stringify(pair[0]) + ':' + JSON.stringify(pair[1]);
}

/*
 * filter[0][field]=resource&filter[0][eq]=vod_streams as the value of
 * account_usage_trend's filter: {"0":{"field":"resource","eq":"vod_streams"}}.
 * The database says which fields, operators and values there are. Undefined if
 * there is no filter.
 */
function filterJson(pairs) {
	const conditions = [];

	pairs.forEach((pair) => {
		const parts = /^filter\[([0-9]{1,3})\]\[([a-z_]{1,32})\]$/.exec(pair[0]);
		let condition;

		if (parts === null) {
			if (/^filter(\[|$)/.test(pair[0])) {
				throw new BadRequest('a filter looks like filter[0][field]=resource&filter[0][eq]=vod_streams');
			}
			return;
		}
		condition = conditions.find((c) => c.index === Number(parts[1]));
		if (condition === undefined) {
			condition = {index: Number(parts[1]), members: []};
			conditions.push(condition);
		}
		if (condition.members.some((m) => m[0] === parts[2])) {
			throw new BadRequest('a part of the filter is given twice');
		}
		condition.members.push([parts[2], pair[1]]);
	});
	if (conditions.length === 0) {
		return undefined;
	}
	return '{' + conditions.map((c) => '"' + c.index + '":{' + c.members.map(member).join(',') + '}').join(',') + '}';
}

/* Appends members to the text of a JSON object. */
function appendMembers(text, pairs) {
	const begin = text.indexOf('{');
	const end = text.lastIndexOf('}');
	let inner;

	if (pairs.length === 0) {
		return text;
	}
	if (/^[ \t\r\n]*$/.test(text)) {
		return '{' + pairs.map(member).join(',') + '}';
	}
	if (begin < 0 || end < begin || /[^ \t\r\n]/.test(text.slice(0, begin)) ||
		/[^ \t\r\n]/.test(text.slice(end + 1))) {
		throw new BadRequest('the body is not a JSON object');
	}
	inner = text.slice(begin + 1, end);
	return '{' + inner + (/[^ \t\r\n]/.test(inner) ? ',' : '') + pairs.map(member).join(',') + '}';
}

function answer(r, status, body) {
	r.headersOut['Content-Type'] = 'application/json; charset=utf-8';
	r.headersOut['Cache-Control'] = 'no-store';
	r.return(status, body);
}

/* The shape of the first service's errors, out of one of PostgREST's. */
function frontierError(status, text) {
	const metadata = {};
	const code = grpcCodes[status] || 13;
	let error = {};

	try {
		error = JSON.parse(text) || {};
	} catch (e) {
		/* no answer of PostgREST's */
	}
	if (typeof error.code !== 'string' || typeof error.message !== 'string') {
		return JSON.stringify({code: code, message: 'service unavailable', details: []});
	}
	['details', 'hint'].forEach((key) => {
		if (typeof error[key] === 'string') {
			metadata[key] = error[key];
		}
	});
	return JSON.stringify({code: code, message: error.message, details: [{
		'@type': 'type.googleapis.com/google.rpc.ErrorInfo', reason: error.code,
		domain: 'usage_billing', metadata: metadata
	}]});
}

function frontierRefuse(r, status, message) {
	answer(r, status, JSON.stringify({code: grpcCodes[status], message: message, details: []}));
}

function refuse(r, status, message) {
	answer(r, status, JSON.stringify({code: 'gateway', message: message, details: null, hint: null}));
}

/* Runs build, and answers 400 if it finds a mistake of the client's. */
function checked(r, refuseWith, build) {
	try {
		return build();
	} catch (e) {
		if (!(e instanceof BadRequest)) {
			throw e;
		}
		refuseWith(r, 400, e.badRequest);
		return null;
	}
}

function call(r, target, body) {
	return r.subrequest('/_postgrest/' + target, {method: 'POST', body: body});
}

function wrongMethod(r, allowed, refuseWith) {
	if (r.method === allowed) {
		return false;
	}
	r.headersOut.Allow = allowed;
	refuseWith(r, 405, 'the method is not allowed here');
	return true;
}

/*
 * What the path of the first service says:
 *   /v1beta1/organizations/[ORG/]billing/[ACCOUNT/]usages
 *   /v1beta1/organizations/[ORG/]billing/[ACCOUNT/]usages/[USAGE/]revert
 */
function frontierPath(r) {
	const path = r.variables.request_uri.split('?')[0];
	const parts = /^\/v1beta1\/organizations\/(?:([^\/]+)\/)?billing\/(?:([^\/]+)\/)?usages(\/(?:([^\/]+)\/)?revert)?$/.exec(path);
	const found = [];

	if (parts === null) {
		return null;
	}
	[['org_id', 1], ['billing_id', 2], ['usage_id', 4]].forEach((name) => {
		if (parts[name[1]] !== undefined) {
			found.push([name[0], decode(parts[name[1]])]);
		}
	});
	return {target: parts[3] === undefined ? 'create_usage' : 'revert_usage', members: found};
}

/* The members that the URL adds to the body; path and query must agree. */
function frontierMembers(r, path) {
	const query = namedPairs(queryPairs(r), ['org_id', 'billing_id', 'project_id']);

	return path.members.concat(query.filter((pair) => {
		const same = path.members.find((m) => m[0] === pair[0]);

		if (same !== undefined && same[1] !== pair[1]) {
			throw new BadRequest('path and query string name two different ' + pair[0]);
		}
		return same === undefined;
	}));
}

/* Creating and reverting usage: {} on success. */
async function frontier(r) {
	const path = checked(r, frontierRefuse, () => frontierPath(r) || 'none');
	let body;
	let reply;

	if (path === null) {
		return;
	}
	if (path === 'none') {
		frontierRefuse(r, 404, 'not found');
		return;
	}
	if (wrongMethod(r, 'POST', frontierRefuse)) {
		return;
	}
	body = checked(r, frontierRefuse, () => appendMembers(r.requestText || '', frontierMembers(r, path)));
	if (body === null) {
		return;
	}
	reply = await call(r, path.target, body);
	if (reply.status >= 200 && reply.status < 300) {
		answer(r, 200, '{}');
		return;
	}
	if (reply.status === 401) {
		r.headersOut['WWW-Authenticate'] = 'Basic realm="usage_billing"';
	}
	answer(r, reply.status, frontierError(reply.status, reply.responseText));
}

/* The other two services: the answer as it is. */
async function passOn(r, target, body) {
	const reply = await call(r, target, body);
	const authenticate = reply.headersOut['WWW-Authenticate'];

	if (authenticate) {
		r.headersOut['WWW-Authenticate'] = authenticate;
	}
	if (!/^application\/(.*\+)?json/.test(reply.headersOut['Content-Type'] || '')) {
		refuse(r, reply.status < 500 ? 502 : reply.status, 'service unavailable');
		return;
	}
	answer(r, reply.status, reply.responseText);
}

async function withQuery(r, method, target, names) {
	let body;

	if (wrongMethod(r, method, refuse)) {
		return;
	}
	body = checked(r, refuse, () => appendMembers('{}', namedPairs(queryPairs(r), names)));
	if (body !== null) {
		await passOn(r, target, body);
	}
}

function storageRefresh(r) {
	return withQuery(r, 'POST', 'refresh_storage_usage', ['org_id']);
}

function storageUsage(r) {
	return withQuery(r, 'GET', 'get_storage_usage', ['org_id']);
}

function storageHistory(r) {
	return withQuery(r, 'GET', 'get_storage_usage_history', ['days', 'org_id']);
}

async function usageAccount(r) {
	let body;

	if (wrongMethod(r, 'GET', refuse)) {
		return;
	}
	body = checked(r, refuse, () => {
		const pairs = queryPairs(r);
		const filter = filterJson(pairs);
		const members = namedPairs(pairs, ['from', 'to', 'include', 'org_id']).map(member);

		if (filter !== undefined) {
			members.push('"filter":' + filter);
		}
		return '{' + members.join(',') + '}';
	});
	if (body !== null) {
		await passOn(r, 'account_usage_trend', body);
	}
}

export default {frontier, storageRefresh, storageUsage, storageHistory, usageAccount};
