#!/bin/sh
# Starts the server, or runs one of its commands: start.sh [OPTIONS] [token add NAME --role submitter | audit verify | ...]
#
#   PREFIX                           environment that install.sh made        [/opt/mediscan]
#   MEDISCAN_DATABASE                such as postgresql://mediscan@database/mediscan, without the password
#   MEDISCAN_DATABASE_PASSWORD_FILE  file that holds it: neither the process list nor the unit shows it
#   MEDISCAN_SERVER_FOLDER           where SQLite, uploads and reviews lie
set -eu
if [ -n "${MEDISCAN_DATABASE_PASSWORD_FILE:-}" ]; then
  PGPASSWORD=$(cat "$MEDISCAN_DATABASE_PASSWORD_FILE")
  export PGPASSWORD # read by the client library of PostgreSQL
fi
exec "${PREFIX:-/opt/mediscan}/bin/mediscan" serve "$@"
