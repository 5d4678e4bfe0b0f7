/*
 * document.h
 *		JSONB to typed structs and back. No SQL here.
 */
#ifndef UB_DOCUMENT_H
#define UB_DOCUMENT_H

#include "value.h"

/*
 * The delivery measurements that a usage's metadata may carry, in the order of
 * the columns of usage_revert, usage_delta and usage_hourly.
 */
#define UB_MEASURES 5
extern const char *const ub_measure_names[UB_MEASURES];

/* How many resources account_usage_trend knows. */
#define UB_RESOURCES 2

/* One element of create_usage's array; texts point into the document. */
typedef struct UbUsageItem
{
	pg_uuid_t id;
	int index;	  /* position in the array */
	bool feature; /* type feature, else credit */
	bool has_created_at;
	int64 amount;
	TimestampTz created_at;
	UbSlice source;
	UbSlice description;
	UbSlice user_id;
	JsonbContainer *metadata; /* null: {} */
	int metadata_len;
} UbUsageItem;

extern UbUsageItem *ub_document_usages(Jsonb *document, UbSlice billing_id,
									   int *count);

extern bool ub_document_delivers(bool feature, UbSlice source);
extern void ub_document_measures(UbPlace place, JsonbContainer *metadata,
								 int64 *measures);
extern Jsonb *ub_document_metadata(JsonbContainer *metadata, int len);
extern Jsonb *ub_document_empty(void);

extern void ub_document_filter(Jsonb *filter, const char *const *resources,
							   bool *chosen);
extern bool ub_document_include(UbSlice include);

extern void ub_object_begin(JsonbParseState **state);
extern void ub_object_text(JsonbParseState **state, const char *key,
						   const char *value);
extern void ub_object_int(JsonbParseState **state, const char *key,
						  int64 value);
extern void ub_object_bool(JsonbParseState **state, const char *key,
						   bool value);
extern void ub_object_nested(JsonbParseState **state, const char *key);
extern void ub_object_array(JsonbParseState **state, const char *key);
extern void ub_array_text(JsonbParseState **state, const char *text);
extern Datum ub_object_end(JsonbParseState **state);

#endif /* UB_DOCUMENT_H */
