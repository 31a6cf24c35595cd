#!/bin/sh
# Makes the files of secrets/ that are not there yet, and never changes one that
# is. Run it as root, since each belongs to the user of one container.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets

wxidp=65532 postgres=999 haproxy=99 # the users within the images

# give NAME USER: standard input becomes the file, which only this user can read.
give() {
	if [ -e "secrets/$1" ]; then
		cat >/dev/null
		echo "secrets/$1 is there already"
		return
	fi
	cat >"secrets/.new"
	[ -s secrets/.new ] || { rm -f secrets/.new; echo "secrets/$1: nothing to write" >&2; exit 1; }
	chown "$2:$2" secrets/.new
	chmod 0400 secrets/.new
	mv secrets/.new "secrets/$1"
	echo "wrote secrets/$1"
}

password() { openssl rand -hex 24; }

password | give postgres-password $postgres
password | give owner-password $postgres
password | give serve-password $postgres
# Without TLS between containers of one machine. Elsewhere: sslmode=verify-full.
echo "postgres://wxidp_owner:$(cat secrets/owner-password)@postgres/wxidp?sslmode=disable" | give owner-dsn $wxidp
echo "postgres://wxidp:$(cat secrets/serve-password)@postgres/wxidp?sslmode=disable&pool_max_conns=16" | give serve-dsn $wxidp
openssl rand -base64 32 | give master-key $wxidp

if [ ! -e secrets/wechat-secret ]; then
	if [ -t 0 ]; then printf 'AppSecret of the mini-program: ' >&2; fi
	head -n 1 | give wechat-secret $wxidp
fi
# Certificate, intermediates and private key in one file, as HAProxy reads them.
if [ ! -e secrets/tls.pem ]; then
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 30 -subj /CN=id.example.com \
		-addext subjectAltName=DNS:id.example.com -keyout secrets/.key -out secrets/.cert 2>/dev/null
	cat secrets/.cert secrets/.key | give tls.pem $haproxy
	rm -f secrets/.cert secrets/.key
	echo "secrets/tls.pem is signed by itself: put your own certificate in its place"
fi
echo
echo "Copy secrets/master-key to another place: without it the data cannot be read."
