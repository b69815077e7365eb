-- Once, by whoever administers the server, in the database that the service has (UTF8): who may do what.
--
--   createdb --encoding=UTF8 --template=template0 cra
--   psql --dbname=cra --set=ON_ERROR_STOP=1 --file=deploy/postgres/roles.sql
--
-- Give each a password with \password, or a certificate; nothing here has one.

-- Migrates the schema, and owns it; nothing runs as it between upgrades.
CREATE ROLE cra_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS;
-- The service.
CREATE ROLE cra_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS;
-- Removes ended sessions whose time is over; a service has it only if it is to purge.
CREATE ROLE cra_purge NOLOGIN;
-- Reads: backups of one schema, audits. It sees every tenant, and the digests of keys.
CREATE ROLE cra_reader LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS;

CREATE SCHEMA cra AUTHORIZATION cra_owner;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
