#!/bin/bash
# Run once by PostgreSQL's image, while it makes its data folder: one database and one role for each service.
set -euo pipefail
for name in airflow celery mlflow; do
    variable=${name^^}_DATABASE_PASSWORD
    psql --quiet --username "${POSTGRES_USER:-postgres}" --dbname postgres --set ON_ERROR_STOP=1 \
        --set name="$name" --set password="${!variable}" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done
