-- Nothing is granted to anyone: a DBA grants what a role needs.
--
-- PostgreSQL lets everyone execute a new function, and these run with their
-- owner's rights, so that right is taken back in the script that makes them.
-- Tables and the schema are closed from the start, unless the database's
-- default privileges, or a schema that was there before, opened them.
-- The type stays usable by everyone: it gives access to nothing, and callers
-- name it in casts.

REVOKE ALL ON SCHEMA usage_billing FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA usage_billing FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA usage_billing FROM PUBLIC;
