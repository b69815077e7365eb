#!/bin/sh
# Make the secrets that compose.yaml reads, once; what is there is kept.
#
# The files are readable for everybody inside a container, which sees them under another user's number; on this machine
# the directory keeps everybody else out.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
# It may have been there before.
chmod 700 secrets
if [ -e secrets/postgres-password ] || [ -e secrets/storage-url ]; then
    echo "deploy/secrets has its secrets already" >&2
    exit 0
fi
password=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
printf '%s' "$password" >secrets/postgres-password
printf 'postgresql://cra:%s@postgres:5432/cra\n' "$password" >secrets/storage-url
chmod 444 secrets/postgres-password secrets/storage-url
echo "made deploy/secrets/postgres-password and deploy/secrets/storage-url" >&2
