/*
 * document.c
 *		JSONB to typed structs and back.
 *
 * A batch is read once, in place: the items point into the document, which
 * must stay where it is while they are used.
 */
#include "postgres.h"

#include <limits.h>

#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "document.h"
#include "errors.h"
#include "settings.h"

const char *const ub_measure_names[UB_MEASURES] = {
	"viewing_seconds", "viewing_bytes", "egress_seconds",
	"egress_seconds_additional_targets", "egress_bytes"};

#define UB_USAGE_KEYS \
	"Known keys are id, amount, type, source, description, user_id, metadata, customer_id, created_at and updated_at."

#define UB_FILTER_ALLOWED \
	"; allowed is the field resource with eq or in, and the values transcoders and vod_streams"
#define UB_FILTER_HINT \
	"For example [{\"field\": \"resource\", \"eq\": \"vod_streams\"}]."

/* What kind of JSON value was found, for error details. */
static const char *
document_found(JsonbValue *value)
{
	switch (value->type)
	{
		case jbvNull:
			return "is null";
		case jbvBool:
			return "is a boolean";
		case jbvNumeric:
			return "is a number";
		case jbvString:
			return "is a string";
		default:
			return JsonContainerIsArray(value->val.binary.data) ?
				"is an array" :
				"is an object";
	}
}

static void
document_wrong_type(UbPlace place, const char *field, JsonbValue *value,
					const char *wanted)
{
	ub_value_error(place, field, ERRCODE_INVALID_PARAMETER_VALUE,
				   psprintf("%s; it must be %s", document_found(value), wanted),
				   NULL);
}

static UbSlice
document_string(UbPlace place, const char *field, JsonbValue *value, int limit)
{
	UbSlice slice;

	if (value->type != jbvString)
		document_wrong_type(place, field, value, "a string");
	slice.data = value->val.string.val;
	slice.len = value->val.string.len;
	ub_value_check_length(place, field, slice, limit);
	return slice;
}

static const char *
document_number_text(Numeric number)
{
	char *text = DatumGetCString(
		DirectFunctionCall1(numeric_out, NumericGetDatum(number)));

	return ub_clip(text, strlen(text));
}

/*
 * Reads an integer that is a JSON number or a string of digits. False with
 * *problem set if it is neither or doesn't fit; range tells which.
 */
static bool
document_int64(JsonbValue *value, int64 *result, const char **problem,
			   bool *range)
{
	bool malformed;

	*range = false;
	if (value->type == jbvNumeric)
	{
		if (ub_value_number(value->val.numeric, result, &malformed))
			return true;
		*problem = psprintf(malformed ? "is %s, which is not an integer" :
										"is %s, which is beyond the range of bigint",
							document_number_text(value->val.numeric));
	}
	else if (value->type == jbvString)
	{
		UbSlice slice = {value->val.string.val, value->val.string.len};

		if (ub_value_decimal(slice, result, &malformed))
			return true;
		*problem = malformed ?
			psprintf("is \"%s\"; a string must hold decimal digits only",
					 ub_clip(slice.data, slice.len)) :
			psprintf("is \"%s\", which is beyond the range of bigint",
					 ub_clip(slice.data, slice.len));
	}
	else
	{
		*problem = psprintf("%s; it must be an integer", document_found(value));
		return false;
	}
	*range = !malformed;
	return false;
}

static int64
document_amount(UbPlace place, JsonbValue *value)
{
	int64 amount;
	const char *problem;
	bool range;

	if (!document_int64(value, &amount, &problem, &range))
		ub_value_error(place, "amount",
					   range ? ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE :
							   ERRCODE_INVALID_PARAMETER_VALUE,
					   problem, NULL);
	if (amount < 0)
		ub_value_error(place, "amount", ERRCODE_INVALID_PARAMETER_VALUE,
					   psprintf("is " INT64_FORMAT "; it must not be negative", amount),
					   "Use revert_usage to give credits back.");
	return amount;
}

static void
document_created_at(UbPlace place, JsonbValue *value, UbUsageItem *item)
{
	UbSlice slice;

	if (value->type != jbvString)
		document_wrong_type(place, "created_at", value, "an RFC 3339 string");
	slice.data = value->val.string.val;
	slice.len = value->val.string.len;
	if (!ub_value_time(slice, &item->created_at))
		ub_value_error(place, "created_at", ERRCODE_INVALID_DATETIME_FORMAT,
					   psprintf("is \"%s\"", ub_clip(slice.data, slice.len)),
					   "Use RFC 3339, for example 2025-01-31T13:45:00Z.");
	if (item->created_at >
		GetCurrentTimestamp() + ub_max_future * USECS_PER_SEC)
		ub_value_error(place, "created_at", ERRCODE_INVALID_PARAMETER_VALUE,
					   psprintf("is \"%s\", which is too far in the future",
								ub_clip(slice.data, slice.len)),
					   "Check the sender's clock; usage_billing.max_future says how much is allowed.");
	item->has_created_at = true;
}

static void
document_id(UbPlace place, JsonbValue *value, UbUsageItem *item)
{
	UbSlice slice;

	if (value->type != jbvString)
		document_wrong_type(place, "id", value, "a uuid");
	slice.data = value->val.string.val;
	slice.len = value->val.string.len;
	if (!ub_value_uuid(slice, &item->id))
		ub_value_error(place, "id", ERRCODE_INVALID_TEXT_REPRESENTATION,
					   psprintf("is \"%s\", which is no uuid",
								ub_clip(slice.data, slice.len)),
					   NULL);
}

static void
document_type(UbPlace place, JsonbValue *value, UbUsageItem *item)
{
	UbSlice slice = document_string(place, "type", value, INT_MAX);

	if (slice.len == 7 && memcmp(slice.data, "feature", 7) == 0)
		item->feature = true;
	else if (slice.len != 0 &&
			 !(slice.len == 6 && memcmp(slice.data, "credit", 6) == 0))
		ub_value_error(place, "type", ERRCODE_INVALID_PARAMETER_VALUE,
					   psprintf("is \"%s\"", ub_clip(slice.data, slice.len)),
					   "A type is credit or feature.");
}

static void
document_customer(UbPlace place, JsonbValue *value, UbSlice billing_id)
{
	UbSlice slice = document_string(place, "customer_id", value, UB_ID_BYTES);

	if (slice.len != 0 &&
		(slice.len != billing_id.len ||
		 memcmp(slice.data, billing_id.data, slice.len) != 0))
		ub_value_error(place, "customer_id", ERRCODE_INVALID_PARAMETER_VALUE,
					   psprintf("is \"%s\", which is not the account of this call",
								ub_clip(slice.data, slice.len)),
					   "Leave customer_id out, or send one call for each account.");
}

/* Takes the value of one key into the item. */
static void
document_key(UbPlace place, JsonbValue *key, JsonbValue *value,
			 UbUsageItem *item, UbSlice billing_id, bool *has_id,
			 bool *has_amount)
{
	const char *name = key->val.string.val;
	int len = key->val.string.len;
	bool given = value->type != jbvNull;

#define KEY_IS(s) (len == sizeof(s) - 1 && memcmp(name, s, sizeof(s) - 1) == 0)
	if (KEY_IS("id"))
	{
		if (given)
			document_id(place, value, item);
		*has_id = given;
	}
	else if (KEY_IS("amount"))
	{
		if (given)
			item->amount = document_amount(place, value);
		*has_amount = given;
	}
	else if (KEY_IS("updated_at"))
		return;
	else if (KEY_IS("type"))
	{
		if (given)
			document_type(place, value, item);
	}
	else if (KEY_IS("source"))
	{
		if (given)
			item->source = document_string(place, "source", value, UB_ID_BYTES);
	}
	else if (KEY_IS("description"))
	{
		if (given)
			item->description = document_string(place, "description", value,
												UB_DESCRIPTION_BYTES);
	}
	else if (KEY_IS("user_id"))
	{
		if (given)
			item->user_id = document_string(place, "user_id", value, UB_ID_BYTES);
	}
	else if (KEY_IS("created_at"))
	{
		if (given)
			document_created_at(place, value, item);
	}
	else if (KEY_IS("customer_id"))
	{
		if (given)
			document_customer(place, value, billing_id);
	}
	else if (KEY_IS("metadata"))
	{
		if (!given)
			return;
		if (value->type != jbvBinary ||
			!JsonContainerIsObject(value->val.binary.data))
			document_wrong_type(place, "metadata", value, "an object");
		ub_value_check_metadata(place, value->val.binary.data);
		item->metadata = value->val.binary.data;
		item->metadata_len = value->val.binary.len;
	}
	else
		ub_value_error(place, "", ERRCODE_INVALID_PARAMETER_VALUE,
					   psprintf("has an unknown key \"%s\"", ub_clip(name, len)),
					   UB_USAGE_KEYS);
#undef KEY_IS
}

/* Reads one element of the array into item, which is zero on entry. */
static void
document_usage(UbPlace place, JsonbContainer *object, UbUsageItem *item,
			   UbSlice billing_id)
{
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue key;
	JsonbValue value;
	bool has_id = false;
	bool has_amount = false;

	item->index = place.index;
	while ((token = JsonbIteratorNext(&it, &key, true)) != WJB_DONE)
	{
		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &value, true);
		document_key(place, &key, &value, item, billing_id, &has_id,
					 &has_amount);
	}
	if (!has_id)
		ub_value_error(place, "id", ERRCODE_INVALID_PARAMETER_VALUE, "is missing",
					   "Every usage needs an id of its own; it makes a repeated call safe.");
	if (!has_amount)
		ub_value_error(place, "amount", ERRCODE_INVALID_PARAMETER_VALUE,
					   "is missing", NULL);
	if (item->metadata != NULL &&
		ub_document_delivers(item->feature, item->source))
	{
		int64 measures[UB_MEASURES];

		ub_document_measures(place, item->metadata, measures);
	}
}

/*
 * Reads create_usage's array into items, in the array's order. billing_id is
 * the account that a customer_id must name.
 */
UbUsageItem *
ub_document_usages(Jsonb *document, UbSlice billing_id, int *count)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue value;
	UbUsageItem *items;
	int n = 0;

	if (!JB_ROOT_IS_ARRAY(document) || JB_ROOT_IS_SCALAR(document))
		ub_value_error(UB_PLACE_PARAMETER, "usages", ERRCODE_INVALID_PARAMETER_VALUE,
					   "is not a JSON array",
					   "Send an array of objects, also for a single usage.");
	*count = JB_ROOT_COUNT(document);
	if (*count > ub_max_batch_size)
		ub_value_error(UB_PLACE_PARAMETER, "usages", ERRCODE_INVALID_PARAMETER_VALUE,
					   psprintf("has %d elements; the most is %d", *count,
								ub_max_batch_size),
					   "Send several calls; each is safe to repeat.");

	items = palloc0(sizeof(UbUsageItem) * Max(*count, 1));
	it = JsonbIteratorInit(&document->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		UbPlace place = UB_PLACE_ELEMENT(n);

		if (token != WJB_ELEM)
			continue;
		if (value.type != jbvBinary ||
			!JsonContainerIsObject(value.val.binary.data))
			document_wrong_type(place, "", &value, "an object");
		document_usage(place, value.val.binary.data, &items[n++], billing_id);
	}
	return items;
}

/* Whether a usage's metadata may carry measurements. */
bool
ub_document_delivers(bool feature, UbSlice source)
{
	return feature &&
		((source.len == 11 && pg_strncasecmp(source.data, "transcoders", 11) == 0) ||
		 (source.len == 11 && pg_strncasecmp(source.data, "vod_streams", 11) == 0));
}

/*
 * Reads the measurements of a delivery usage; absent ones are 0. Keys that
 * are no measurements are the caller's own.
 */
void
ub_document_measures(UbPlace place, JsonbContainer *metadata, int64 *measures)
{
	for (int i = 0; i < UB_MEASURES; i++)
	{
		const char *name = ub_measure_names[i];
		JsonbValue value;
		const char *problem = NULL;
		bool range;

		measures[i] = 0;
		if (metadata == NULL || !JsonContainerIsObject(metadata) ||
			getKeyJsonValueFromContainer(metadata, name, strlen(name),
										 &value) == NULL)
			continue;
		if (document_int64(&value, &measures[i], &problem, &range) &&
			measures[i] < 0)
			problem = psprintf("is " INT64_FORMAT "; it must not be negative",
							   measures[i]);
		if (problem != NULL)
			ub_value_error(place, psprintf("metadata.%s", name),
						   ERRCODE_INVALID_PARAMETER_VALUE, problem,
						   "A measurement is an integer from 0 up, as a number or a string.");
	}
}

/* Makes a value of its own of an object inside a document; null makes {}. */
Jsonb *
ub_document_metadata(JsonbContainer *metadata, int len)
{
	Jsonb *result;

	if (metadata == NULL)
		return ub_document_empty();
	result = palloc(VARHDRSZ + len);
	SET_VARSIZE(result, VARHDRSZ + len);
	memcpy(&result->root, metadata, len);
	return result;
}

Jsonb *
ub_document_empty(void)
{
	Jsonb *result = palloc(VARHDRSZ + sizeof(uint32));

	SET_VARSIZE(result, VARHDRSZ + sizeof(uint32));
	result->root.header = JB_FOBJECT;
	return result;
}

/* Room for what an error calls a place in a filter: filter[17].in[3] */
#define FILTER_PLACE 64

UB_NORETURN static void
filter_wrong(const char *where, const char *found)
{
	ub_value_error(UB_PLACE_PARAMETER, where, ERRCODE_INVALID_PARAMETER_VALUE,
				   found, UB_FILTER_HINT);
}

/*
 * The value of a filter: which of the resources it names. Raises 22023 if it
 * names anything else.
 */
static void
filter_value(const char *where, UbSlice name, const char *const *resources,
			 bool *named)
{
	for (int i = 0; i < UB_RESOURCES; i++)
	{
		if (ub_slice_is(name, resources[i]))
		{
			named[i] = true;
			return;
		}
	}
	filter_wrong(where, psprintf("asks for the resource \"%s\"" UB_FILTER_ALLOWED, ub_clip(name.data, name.len)));
}

static void
filter_strings(const char *where, JsonbContainer *array,
			   const char *const *resources, bool *named)
{
	JsonbIterator *it = JsonbIteratorInit(array);
	JsonbIteratorToken token;
	JsonbValue value;
	int n = 0;

	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		char element[FILTER_PLACE];

		if (token != WJB_ELEM)
			continue;
		snprintf(element, sizeof(element), "%s[%d]", where, n++);
		filter_value(element,
					 document_string(UB_PLACE_PARAMETER, element, &value,
									 INT_MAX),
					 resources, named);
	}
}

/* Reads what eq or in names. */
static void
filter_operand(const char *where, JsonbValue *value, bool list,
			   const char *const *resources, bool *named)
{
	UbSlice rest;

	if (list && value->type == jbvBinary &&
		JsonContainerIsArray(value->val.binary.data))
	{
		filter_strings(where, value->val.binary.data, resources, named);
		return;
	}
	rest = document_string(UB_PLACE_PARAMETER, where, value, INT_MAX);
	while (list)
	{
		const char *comma = rest.len > 0 ? memchr(rest.data, ',', rest.len) :
										   NULL;
		UbSlice word = {rest.data,
						comma ? (int) (comma - rest.data) : rest.len};

		if (comma == NULL)
			break;
		filter_value(where, word, resources, named);
		rest.data = comma + 1;
		rest.len -= word.len + 1;
	}
	filter_value(where, rest, resources, named);
}

/* Takes one condition of a filter, which stands at where, into chosen. */
static void
filter_condition(const char *where, JsonbValue *condition,
				 const char *const *resources, bool *chosen)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue key;
	JsonbValue value;
	bool has_field = false;
	bool has_operator = false;

	if (condition->type != jbvBinary ||
		!JsonContainerIsObject(condition->val.binary.data))
		document_wrong_type(UB_PLACE_PARAMETER, where, condition, "an object");
	it = JsonbIteratorInit(condition->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &key, true)) != WJB_DONE)
	{
		UbSlice name = {key.val.string.val, key.val.string.len};
		bool named[UB_RESOURCES] = {0};
		char at[FILTER_PLACE];

		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &value, true);
		snprintf(at, sizeof(at), "%s.%.*s", where, Min(name.len, 5), name.data);
		if (ub_slice_is(name, "field"))
		{
			UbSlice field = document_string(UB_PLACE_PARAMETER, at, &value,
											INT_MAX);

			has_field = ub_slice_is(field, "resource");
			if (!has_field)
				filter_wrong(where, psprintf("has the field \"%s\"" UB_FILTER_ALLOWED, ub_clip(field.data, field.len)));
			continue;
		}
		if (!ub_slice_is(name, "eq") && !ub_slice_is(name, "in"))
			filter_wrong(where, psprintf("has the operator \"%s\"" UB_FILTER_ALLOWED, ub_clip(name.data, name.len)));
		filter_operand(at, &value, ub_slice_is(name, "in"), resources, named);
		for (int i = 0; i < UB_RESOURCES; i++)
			chosen[i] = chosen[i] && named[i];
		has_operator = true;
	}
	if (!has_field || !has_operator)
		filter_wrong(where, has_field ? "has no operator" UB_FILTER_ALLOWED : "has no field" UB_FILTER_ALLOWED);
}

/*
 * Reads account_usage_trend's filter, null if there is none: an array of
 * conditions, or an object with their numbers as keys. All must hold.
 */
void
ub_document_filter(Jsonb *filter, const char *const *resources, bool *chosen)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue value;
	char where[FILTER_PLACE] = "";
	int n = 0;

	for (int i = 0; i < UB_RESOURCES; i++)
		chosen[i] = true;
	if (filter == NULL)
		return;
	if (JB_ROOT_IS_SCALAR(filter))
		filter_wrong("filter", "is neither an array nor an object" UB_FILTER_ALLOWED);
	it = JsonbIteratorInit(&filter->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY &&
			(value.val.string.len == 0 ||
			 strspn(pnstrdup(value.val.string.val, value.val.string.len), "0123456789") !=
				 (size_t) value.val.string.len))
			filter_wrong("filter", psprintf("has the key \"%s\" where the number of a condition belongs" UB_FILTER_ALLOWED, ub_clip(value.val.string.val, value.val.string.len)));
		if (token == WJB_KEY)
			snprintf(where, sizeof(where), "filter[%.*s]", Min(value.val.string.len, 20), value.val.string.val);
		else if (token == WJB_ELEM)
			snprintf(where, sizeof(where), "filter[%d]", n++);
		if (token == WJB_ELEM || token == WJB_VALUE)
			filter_condition(where, &value, resources, chosen);
	}
}

/* Reads account_usage_trend's include: whether the hours are wanted. */
bool
ub_document_include(UbSlice include)
{
	const char *at = include.data;
	const char *end = include.data + include.len;

	while (include.len > 0)
	{
		const char *comma = memchr(at, ',', end - at);
		UbSlice word = {at, (int) ((comma ? comma : end) - at)};

		if (!ub_slice_is(word, "trend"))
			ub_value_error(UB_PLACE_PARAMETER, "include", ERRCODE_INVALID_PARAMETER_VALUE,
						   psprintf("has the word \"%s\"; allowed is trend",
									ub_clip(word.data, word.len)),
						   NULL);
		if (comma == NULL)
			break;
		at = comma + 1;
	}
	return include.len > 0;
}

/* The functions below build a JSON object, key by key, as a result. */
void
ub_object_begin(JsonbParseState **state)
{
	*state = NULL;
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
}

static void
object_key(JsonbParseState **state, const char *key)
{
	JsonbValue value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, key);
	value.val.string.len = strlen(key);
	pushJsonbValue(state, WJB_KEY, &value);
}

void
ub_object_text(JsonbParseState **state, const char *key, const char *text)
{
	JsonbValue value;

	object_key(state, key);
	value.type = jbvString;
	value.val.string.val = unconstify(char *, text);
	value.val.string.len = strlen(text);
	pushJsonbValue(state, WJB_VALUE, &value);
}

void
ub_object_int(JsonbParseState **state, const char *key, int64 number)
{
	JsonbValue value;

	object_key(state, key);
	value.type = jbvNumeric;
	value.val.numeric = int64_to_numeric(number);
	pushJsonbValue(state, WJB_VALUE, &value);
}

void
ub_object_bool(JsonbParseState **state, const char *key, bool flag)
{
	JsonbValue value;

	object_key(state, key);
	value.type = jbvBool;
	value.val.boolean = flag;
	pushJsonbValue(state, WJB_VALUE, &value);
}

/* Begins an object under key; the caller ends it. */
void
ub_object_nested(JsonbParseState **state, const char *key)
{
	object_key(state, key);
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
}

/* Begins an array under key; the caller ends it. */
void
ub_object_array(JsonbParseState **state, const char *key)
{
	object_key(state, key);
	pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
}

void
ub_array_text(JsonbParseState **state, const char *text)
{
	JsonbValue value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, text);
	value.val.string.len = strlen(text);
	pushJsonbValue(state, WJB_ELEM, &value);
}

Datum
ub_object_end(JsonbParseState **state)
{
	JsonbValue *object = pushJsonbValue(state, WJB_END_OBJECT, NULL);

	return JsonbPGetDatum(JsonbValueToJsonb(object));
}
