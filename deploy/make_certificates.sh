#!/bin/sh
# Certificates for a broker and its clients, signed by a CA of your own. Needs OpenSSL 1.1.1 or
# newer and no network.
#
#   make_certificates.sh FOLDER server HOST...   the broker's, for its host names and addresses
#   make_certificates.sh FOLDER client USER      for a device or a node, whose user name it is
#
# Makes FOLDER/ca.crt and ca.key at first use, then server.crt and server.key, or USER.crt and
# USER.key. Devices need ca.crt; nobody but you needs ca.key. What is there already is not replaced:
# remove it first.
set -eu
umask 077

ca_days=3650
days=825 # as much as most TLS clients accept

fail() {
    echo "error: $1" >&2
    exit 2
}

usage() {
    sed -n 's/^#   //p' "$0" >&2
    exit 2
}

check_name() {
    case $1 in
        '' | *[!A-Za-z0-9._-]*) fail "'$1': a name is made of A-Z a-z 0-9 . _ -" ;;
    esac
    [ "${#1}" -le 64 ] || fail "'$1' is longer than 64 characters"
}

new_key() {
    openssl ecparam -name prime256v1 -genkey -noout -out "$1"
}

# sign NAME COMMON_NAME EXTENSIONS
sign() {
    cert=$folder/$1.crt
    key=$folder/$1.key
    [ ! -e "$cert" ] && [ ! -e "$key" ] || fail "$cert or $key is there already"
    new_key "$work/key"
    openssl req -new -key "$work/key" -subj "/O=Offramp/CN=$2" -config "$work/empty" -out "$work/csr"
    {
        echo "basicConstraints = critical, CA:FALSE"
        echo "keyUsage = critical, digitalSignature"
        echo "subjectKeyIdentifier = hash"
        echo "authorityKeyIdentifier = keyid"
        echo "$3"
    } > "$work/extensions"
    openssl x509 -req -in "$work/csr" -CA "$folder/ca.crt" -CAkey "$folder/ca.key" \
        -set_serial "0x$(openssl rand -hex 16 | sed 's/^./1/')" -sha256 -days "$days" \
        -extfile "$work/extensions" -out "$work/crt" 2> "$work/said" || fail "$(cat "$work/said")"
    mv "$work/key" "$key"
    mv "$work/crt" "$cert"
    chmod 644 "$cert"
    echo "$cert and $key, valid for $days days"
}

[ $# -ge 3 ] || usage
folder=$1
kind=$2
shift 2
case $kind in
    server) ;;
    client) [ $# -eq 1 ] || usage ;;
    *) usage ;;
esac
command -v openssl > /dev/null || fail "openssl is not installed: sudo apt-get install openssl"
mkdir -p "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf '[req]\ndistinguished_name = name\n[name]\n' > "$work/empty"

if [ ! -e "$folder/ca.key" ]; then
    new_key "$folder/ca.key"
    cat "$work/empty" - > "$work/ca" << 'END'
[ca]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
END
    openssl req -new -x509 -key "$folder/ca.key" -sha256 -days "$ca_days" \
        -subj "/O=Offramp/CN=Offramp CA" -config "$work/ca" -extensions ca -out "$folder/ca.crt"
    chmod 644 "$folder/ca.crt"
    echo "$folder/ca.crt and $folder/ca.key, valid for $ca_days days"
fi

case $kind in
    server)
        names=
        for host in "$@"; do
            case $host in
                *:*) # an IPv6 address
                    case $host in *[!0-9a-fA-F:.]*) fail "'$host' is no address" ;; esac
                    name=IP:$host
                    ;;
                *[!0-9.]*)
                    check_name "$host"
                    name=DNS:$host
                    ;;
                *) name=IP:$host ;;
            esac
            names="$names${names:+, }$name"
        done
        sign server broker "$(printf 'extendedKeyUsage = serverAuth\nsubjectAltName = %s' "$names")"
        ;;
    client)
        check_name "$1"
        case $1 in ca | server) fail "a client cannot be called '$1' here" ;; esac
        sign "$1" "$1" "extendedKeyUsage = clientAuth"
        ;;
esac
