# usage_billing: build, test and show.
#
#   make && sudo make install     needs only PostgreSQL's server headers (PGXS)
#   make check                    installs what is missing, lints, tests
#   make demo                     shows the main job on a throwaway server
#   make fuzz                     a million hostile documents; SEED=n repeats a run
#   make check-sanitize           every test with the sanitizers of addresses and of undefined behaviour
#   make check-valgrind           the core of the tests under valgrind, which it installs
#   make bench                    compares with what people would write by hand
#   make bench-more               measures what docs/performance.md tells besides; an hour or more
#   make check-versions           runs the tests for every PostgreSQL that Debian has
#   make freeze                   keeps the scripts of this version for good
#
# Another server version: make PG_MAJOR=17 ...   or   make PG_CONFIG=/path/pg_config ...

EXTENSION = usage_billing usage_billing_router
EXTVERSION = 1.0.0

# The version that this Debian release offers.
ifndef PG_MAJOR
PG_MAJOR := $(shell . /etc/os-release; case "$$VERSION_CODENAME" in (bookworm) echo 15;; (*) echo 17;; esac)
endif
PG_CONFIG ?= /usr/lib/postgresql/$(PG_MAJOR)/bin/pg_config

# The rooms of the install script, in the order in which it is read.
SQL_ROOMS = 10_types 20_facts 30_derived 40_triggers 50_api 55_trend 60_maintenance 70_storage \
	72_maintenance_status 74_routing 75_policies 80_grants 90_comments

# The same of usage_billing_router. Comments are the node's where the name is.
ROUTER_ROOMS = 10_types 20_directory 30_route 50_api 60_all 80_grants 90_comments
COMMENTED = create_billing_account create_project grant_credits create_usage revert_usage account_balance \
	total_debited account_transactions account_usage_trend usage_series close_billing_period refresh_storage_usage \
	get_storage_usage get_storage_usage_history recount_storage_usage set_storage_limits track_storage \
	untrack_storage run_maintenance verify rebuild usage_type usage_bucket billing_account project storage_usage \
	maintenance_status

# The rooms that an update script ends with, as they are: what is in them can be
# said again and again.
UPDATE_ROOMS = 90_comments

# These goals need no server headers before they start: deps brings them.
PROJECT_GOALS = deps lint format check check-regress check-isolation \
	check-pgtap check-escrow check-tap check-http check-versions check-sanitize check-valgrind \
	fuzz bench bench-router bench-more demo demo-scale-out

ifneq (,$(filter $(PROJECT_GOALS),$(MAKECMDGOALS)))

export PG_MAJOR PG_CONFIG EXTVERSION SQL_ROOMS ROUTER_ROOMS

.PHONY: $(MAKECMDGOALS)
.NOTPARALLEL:

deps:
	tools/deps

lint: deps
	tools/lint

format: deps
	tools/format

check: lint
	tools/check-http
	test/run

check-regress check-isolation check-pgtap check-escrow check-tap: check-%: deps
	test/run $*

check-http: deps
	TEST='040_http_contract 041_gateway' test/run tap
	tools/check-http

check-versions:
	tools/check-versions

fuzz: deps
	TEST_LIMIT=0 DOCUMENTS=$${DOCUMENTS:-1000000} SEED=$${SEED:-$$(date +%s)} TEST=055_fuzz test/run tap

check-sanitize: deps
	CHECKED=sanitize test/run

check-valgrind: deps
	tools/deps valgrind
	CHECKED=valgrind TEST='main_job errors good_input bad_input every_way_in revert trend guards' test/run regress pgtap

demo: deps
	tools/demo

demo-scale-out: deps
	tools/demo-scale-out

bench: deps
	test/bench/run
	test/bench/router

bench-router: deps
	test/bench/router

bench-more: deps
	test/bench/more

# Other goals in the same command.
$(filter-out $(PROJECT_GOALS),$(MAKECMDGOALS)):
	$(MAKE) $@

else

MODULE_big = usage_billing
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))

# A version that is released is frozen: its scripts are kept in sql/frozen, and
# are installed for those who have it. The newest one is what the version in the
# making is updated from. docs/development.md has the steps.
FROZEN := $(shell ls sql/frozen 2>/dev/null | \
	sed -n 's/^usage_billing--\([0-9.]*\)\.sql$$/\1/p' | sort -V | tail -n 1)
CREATE_SCRIPT = sql/usage_billing--$(EXTVERSION).sql
ROUTER_SCRIPT = sql/usage_billing_router--$(EXTVERSION).sql
UPDATE_SCRIPT = $(if $(filter-out $(EXTVERSION),$(FROZEN)),sql/usage_billing--$(FROZEN)--$(EXTVERSION).sql)
DATA_built = $(CREATE_SCRIPT) $(UPDATE_SCRIPT) $(ROUTER_SCRIPT)
DATA = $(filter-out $(DATA_built:sql/%=sql/frozen/%),$(wildcard sql/frozen/*.sql))

# The server's headers are system headers here, so that every warning is one
# about this code. The arguments of a C function or a hook are not ours to
# leave out.
PG_CPPFLAGS = -isystem $(shell $(PG_CONFIG) --includedir-server) \
	-DUB_VERSION='"$(EXTVERSION)"'
PG_CFLAGS = -Wall -Wextra -Werror -Wno-unused-parameter

# PGXS passes options that are gcc's to every compiler.
ifneq (,$(findstring clang,$(CC)))
PG_CFLAGS += -Wno-unknown-warning-option -Wno-ignored-optimization-argument
endif

# Bitcode is for inlining small SQL functions into queries; here is none.
override with_llvm = no

PGXS := $(shell $(PG_CONFIG) --pgxs)
ifeq (,$(PGXS))
$(error $(PG_CONFIG) is missing: run "make deps", or set PG_CONFIG)
endif
include $(PGXS)

$(OBJS): $(wildcard src/*.h) Makefile

# What is frozen stays as it is.
$(CREATE_SCRIPT): $(SQL_ROOMS:%=sql/install/%.sql) $(wildcard sql/frozen/*.sql) Makefile
	{ printf '%s\n' '-- Generated from sql/install/ by make.' \
		'\echo Use "CREATE EXTENSION usage_billing" to load this file. \quit'; \
	  cat $(SQL_ROOMS:%=sql/install/%.sql); } > $@.part
	@test ! -e sql/frozen/$(@F) || cmp $@.part sql/frozen/$(@F) || \
		{ echo 'Version $(EXTVERSION) is frozen: what changes in sql/install is a new version (docs/development.md).' >&2; exit 1; }
	mv $@.part $@

ifneq (,$(UPDATE_SCRIPT))
$(UPDATE_SCRIPT): $(sort $(wildcard sql/upgrade/*.sql)) $(UPDATE_ROOMS:%=sql/install/%.sql) Makefile
	{ printf '%s\n' '-- Generated from sql/upgrade/ by make.' \
		'\echo Use "ALTER EXTENSION usage_billing UPDATE" to load this file. \quit'; \
	  cat $(filter %.sql,$^); } > $@.part
	mv $@.part $@
endif

# A comment ends with a quote and a semicolon. What is a table or a view of a
# node may be a type here.
$(ROUTER_SCRIPT): $(ROUTER_ROOMS:%=sql/router/%.sql) $(SQL_ROOMS:%=sql/install/%.sql) Makefile
	{ printf '%s\n' '-- Generated from sql/router/ and the comments in sql/install/ by make.' \
		'\echo Use "CREATE EXTENSION usage_billing_router" to load this file. \quit'; \
	  cat $(filter-out %/80_grants.sql %/90_comments.sql,$(filter sql/router/%,$^)); \
	  tools/comments $(COMMENTED) < sql/install/90_comments.sql; \
	  tools/comments $(COMMENTED) < sql/install/72_maintenance_status.sql; \
	  tools/comments $(COMMENTED) < sql/install/10_types.sql; \
	  cat sql/router/80_grants.sql sql/router/90_comments.sql; } > $@.part
	mv $@.part $@

.PHONY: freeze
freeze: $(CREATE_SCRIPT) $(UPDATE_SCRIPT)
	@test ! -e $(CREATE_SCRIPT:sql/%=sql/frozen/%) || \
		{ echo 'Version $(EXTVERSION) is frozen already.' >&2; exit 1; }
	mkdir -p sql/frozen
	cp $(CREATE_SCRIPT) $(UPDATE_SCRIPT) sql/frozen/
	rm -rf sql/upgrade

endif
