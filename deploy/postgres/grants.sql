-- After every migration, by cra_owner: what the others may do with the tables that there are now. It can be repeated.
--
--   psql --dbname=cra --username=cra_owner --set=ON_ERROR_STOP=1 --file=deploy/postgres/grants.sql

GRANT USAGE ON SCHEMA cra TO cra_app, cra_purge, cra_reader;
REVOKE ALL ON ALL TABLES IN SCHEMA cra FROM cra_app, cra_purge, cra_reader;

GRANT SELECT ON ALL TABLES IN SCHEMA cra TO cra_app, cra_purge, cra_reader;

-- Events are added. The service cannot change one that is there, nor take one away, whoever has got into it.
GRANT INSERT ON ALL TABLES IN SCHEMA cra TO cra_app;
GRANT UPDATE, DELETE ON ALL TABLES IN SCHEMA cra TO cra_app;
REVOKE UPDATE, DELETE ON cra.events FROM cra_app;
REVOKE INSERT, UPDATE, DELETE ON cra.migrations FROM cra_app;

-- GRANT cra_purge TO cra_app;
GRANT DELETE ON cra.events TO cra_purge;
