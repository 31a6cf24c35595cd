-- The database of wxidp and its two users: wxidp_owner owns the tables and runs
-- `wxidp migrate up`; wxidp serves, and can change rows but no table.
--
-- Run it once, by psql, as a user who may create roles and databases:
--
--   OWNER_PASSWORD_FILE=owner-password SERVE_PASSWORD_FILE=serve-password \
--     psql -v ON_ERROR_STOP=1 -d postgres -f roles.sql
--
-- The passwords are read from files, so that they stand in no command line.
\set ON_ERROR_STOP on
\set owner_password `cat "$OWNER_PASSWORD_FILE"`
\set serve_password `cat "$SERVE_PASSWORD_FILE"`

CREATE ROLE wxidp_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE wxidp LOGIN PASSWORD :'serve_password';
-- Where the administrator is no superuser, as in a managed PostgreSQL.
GRANT wxidp_owner TO CURRENT_USER;
CREATE DATABASE wxidp OWNER wxidp_owner ENCODING 'UTF8' TEMPLATE template0;

\connect wxidp
REVOKE ALL ON DATABASE wxidp FROM PUBLIC;
GRANT CONNECT ON DATABASE wxidp TO wxidp;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO wxidp_owner;
GRANT USAGE ON SCHEMA public TO wxidp;
-- Of tables that are yet to come, too.
ALTER DEFAULT PRIVILEGES FOR ROLE wxidp_owner IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO wxidp;
ALTER DEFAULT PRIVILEGES FOR ROLE wxidp_owner IN SCHEMA public GRANT USAGE ON SEQUENCES TO wxidp;
