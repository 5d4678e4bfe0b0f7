# usage_billing: build, test and show.
#
#   make && sudo make install     needs only PostgreSQL's server headers (PGXS)
#   make check                    installs what is missing, lints, tests
#   make demo                     shows the main job on a throwaway server
#   make fuzz                     a million hostile documents; SEED=n repeats a run
#   make check-sanitize           every test with the sanitizers of addresses and of undefined behaviour
#   make check-valgrind           the core of the tests under valgrind, which it installs
#   make bench                    compares with what people would write by hand
#
# Another server version: make PG_MAJOR=17 ...   or   make PG_CONFIG=/path/pg_config ...

EXTENSION = usage_billing
EXTVERSION = 1.0.0

# The version that this Debian release offers.
ifndef PG_MAJOR
PG_MAJOR := $(shell . /etc/os-release; case "$$VERSION_CODENAME" in (bookworm) echo 15;; (*) echo 17;; esac)
endif
PG_CONFIG ?= /usr/lib/postgresql/$(PG_MAJOR)/bin/pg_config

# The rooms of the install script, in the order in which it is read.
SQL_ROOMS = 10_types 20_facts 30_derived 40_triggers 50_api 55_trend 60_maintenance 70_storage \
	72_maintenance_status 75_policies 80_grants 90_comments

# These goals need no server headers before they start: deps brings them.
PROJECT_GOALS = deps lint format check check-regress check-isolation \
	check-pgtap check-tap check-http check-sanitize check-valgrind fuzz bench demo

ifneq (,$(filter $(PROJECT_GOALS),$(MAKECMDGOALS)))

export PG_MAJOR PG_CONFIG SQL_ROOMS

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

check-regress check-isolation check-pgtap check-tap: check-%: deps
	test/run $*

check-http: deps
	TEST='040_http_contract 041_gateway' test/run tap
	tools/check-http

fuzz: deps
	DOCUMENTS=$${DOCUMENTS:-1000000} TEST=070_fuzz test/run tap

check-sanitize: deps
	CHECKED=sanitize test/run

check-valgrind:
	tools/deps valgrind
	CHECKED=valgrind TEST='main_job errors good_input bad_input every_way_in revert trend guards' test/run regress pgtap

demo: deps
	tools/demo

bench: deps
	test/bench/run

# Other goals in the same command.
$(filter-out $(PROJECT_GOALS),$(MAKECMDGOALS)):
	$(MAKE) $@

else

MODULE_big = usage_billing
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))
DATA_built = sql/$(EXTENSION)--$(EXTVERSION).sql

# The server's headers are system headers here, so that every warning is one
# about this code. The arguments of a C function or a hook are not ours to
# leave out.
PG_CPPFLAGS = -isystem $(shell $(PG_CONFIG) --includedir-server)
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

$(DATA_built): $(SQL_ROOMS:%=sql/install/%.sql) Makefile
	{ printf '%s\n' '-- Generated from sql/install/ by make.' \
		'\echo Use "CREATE EXTENSION $(EXTENSION)" to load this file. \quit'; \
	  cat $(filter %.sql,$^); } > $@.part
	mv $@.part $@

endif
