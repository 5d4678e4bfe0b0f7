/*
 * compat.h
 *		Every difference between the supported server versions, each with the
 *		upstream change that it follows. Nothing else tests PG_VERSION_NUM.
 */
#ifndef UB_COMPAT_H
#define UB_COMPAT_H

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 190000
#error "usage_billing is made for PostgreSQL 15 to 18"
#endif

/* 18: PG_MODULE_MAGIC_EXT carries name and version (9324c8c5806) */
#if PG_VERSION_NUM >= 180000
#define UB_MODULE_MAGIC PG_MODULE_MAGIC_EXT(.name = "usage_billing", .version = UB_VERSION)
#else
#define UB_MODULE_MAGIC PG_MODULE_MAGIC
#endif

/* 18: the attribute stands before the declaration (15a79c73111) */
#if PG_VERSION_NUM >= 180000
#define UB_NORETURN pg_noreturn
#else
#define UB_NORETURN pg_attribute_noreturn()
#endif

/* 18: index_beginscan takes an instrumentation struct (0fbceae841c) */
#if PG_VERSION_NUM >= 180000
#define ub_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, 0)
#else
#define ub_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, nkeys, 0)
#endif

/* 16: JSON semantic actions return an error code (1c1eaf0ad9a) */
#if PG_VERSION_NUM >= 160000
#define UB_JSON_ACTION		  JsonParseErrorType
#define UB_JSON_ACTION_RETURN return JSON_SUCCESS
#else
#define UB_JSON_ACTION		  void
#define UB_JSON_ACTION_RETURN return
#endif

/* 17: the caller owns the JSON lexer and may give its memory (1c99cde2f34) */
#if PG_VERSION_NUM >= 170000
#define ub_json_lexer(text, len, escapes) \
	makeJsonLexContextCstringLen(NULL, text, len, GetDatabaseEncoding(), \
								 escapes)
#else
#define ub_json_lexer(text, len, escapes) \
	makeJsonLexContextCstringLen(text, len, GetDatabaseEncoding(), escapes)
#endif

/* 16: ExecInsertIndexTuples can do summarizing indexes only (19d8e2308bc) */
#if PG_VERSION_NUM >= 160000
#define ub_insert_index_tuples(info, slot, estate) \
	ExecInsertIndexTuples(info, slot, estate, false, false, NULL, NIL, false)
#define ub_insert_index_tuples_unless(info, slot, estate, conflict, arbiters) \
	ExecInsertIndexTuples(info, slot, estate, false, true, conflict, arbiters, \
						  false)
#else
#define ub_insert_index_tuples(info, slot, estate) \
	ExecInsertIndexTuples(info, slot, estate, false, false, NULL, NIL)
#define ub_insert_index_tuples_unless(info, slot, estate, conflict, arbiters) \
	ExecInsertIndexTuples(info, slot, estate, false, true, conflict, arbiters)
#endif

/* 16: table_tuple_update tells which indexes need entries (19d8e2308bc) */
#if PG_VERSION_NUM >= 160000
#define UB_UPDATE_INDEXES TU_UpdateIndexes
#define ub_insert_index_tuples_updated(info, slot, estate, which) \
	do \
	{ \
		if ((which) != TU_None) \
			(void) ExecInsertIndexTuples(info, slot, estate, false, false, \
										 NULL, NIL, \
										 (which) == TU_Summarizing); \
	} while (0)
#else
#define UB_UPDATE_INDEXES bool
#define ub_insert_index_tuples_updated(info, slot, estate, which) \
	do \
	{ \
		if (which) \
			ub_insert_index_tuples(info, slot, estate); \
	} while (0)
#endif

/* 16: object_ownercheck replaces a function for each class (c727f511bd7) */
#if PG_VERSION_NUM >= 160000
#define ub_owns_relation(relation, role) \
	object_ownercheck(RelationRelationId, relation, role)
#else
#define ub_owns_relation(relation, role) pg_class_ownercheck(relation, role)
#endif

/* 16: VACUUM can leave the database's own statistics alone (a46a7011b27) */
#if PG_VERSION_NUM >= 160000
#define UB_VACUUM_OPTIONS "SKIP_LOCKED, SKIP_DATABASE_STATS"
#else
#define UB_VACUUM_OPTIONS "SKIP_LOCKED"
#endif

/* 17: extensions name what they wait for (c9af0546530) */
#if PG_VERSION_NUM >= 170000
#define ub_wait_event(name) WaitEventExtensionNew(name)
#else
#define ub_wait_event(name) ((uint32) PG_WAIT_EXTENSION)
#endif

#endif /* UB_COMPAT_H */
