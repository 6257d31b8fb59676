#!/bin/sh
# Makes the secrets that deploy/compose.yaml reads, once: passwords for Redis's users and for Grafana.
#
#   sh deploy/secrets.sh [FOLDER]        FOLDER is deploy/secrets unless you name one
#
# Redis is given digests only: redis_users for 7.0, redis_users_7.2 for 7.2 and newer. A file that is there is left alone, so running it again does no harm.
set -eu
here=$(dirname "$0")
folder=${1:-$here/secrets}
umask 022
mkdir -p "$folder"
# The files must be readable in containers, whose users differ from yours; on this machine the folder is the lock.
chmod 0700 "$folder"

password() {
  od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

digest() {
  printf %s "$1" | sha256sum | cut -d' ' -f1
}

if [ ! -e "$folder/redis_users" ]; then
  cp "$here/redis/users.acl" "$folder/redis_users.new"
  for user in worker operator strategy scaler; do
    secret=$(password)
    printf 'redis://%s:%s@redis:6379/0\n' "$user" "$secret" > "$folder/redis_url_$user"
    sed -i "s/^user $user .*/& #$(digest "$secret")/" "$folder/redis_users.new"
  done
  mv "$folder/redis_users.new" "$folder/redis_users"
  echo "made $folder/redis_users and the URL of each user"
fi

# Redis 7.2 knows two commands more, and 7.0 would not start with their names: CLIENT SETINFO, with which a client library
# tells its version, and WAITAOF, which confirm_fsync needs. Made anew each time from the file for 7.0.
sed -e 's/^user \(worker\|operator\|strategy\|scaler\) .*/& +client|setinfo/' -e 's/^user \(worker\|operator\) .*/& +waitaof/' \
  "$folder/redis_users" > "$folder/redis_users_7.2.new"
mv "$folder/redis_users_7.2.new" "$folder/redis_users_7.2"

if [ ! -e "$folder/grafana_password" ]; then
  password > "$folder/grafana_password"
  echo "made $folder/grafana_password (user admin)"
fi
