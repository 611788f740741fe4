#!/bin/sh
# One-shot: a private certificate authority and Elasticsearch's certificate, for as long as they are valid.
# Writes ca.crt to $TLS_PUBLIC (for every client) and elasticsearch.crt, elasticsearch.key, ca.crt to $TLS_PRIVATE (for the
# server alone). The authority's own key is never stored: a renewal makes a new authority.
set -eu
umask 027

public=${TLS_PUBLIC:?}
private=${TLS_PRIVATE:?}
days=${TLS_DAYS:-825}
renew_before=2592000 # seconds: 30 days

if [ -s "$private/elasticsearch.key" ] \
  && openssl verify -CAfile "$public/ca.crt" "$private/elasticsearch.crt" > /dev/null 2>&1 \
  && openssl x509 -checkend "$renew_before" -noout -in "$private/elasticsearch.crt" > /dev/null 2>&1 \
  && cmp -s "$public/ca.crt" "$private/ca.crt"; then
  echo "Certificate kept: $(openssl x509 -enddate -noout -in "$private/elasticsearch.crt")"
  exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat > "$work/openssl.cnf" <<'EOF'
[req]
prompt = no
distinguished_name = name
[name]
CN = segmentation-assets deployment
[ca]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:elasticsearch, DNS:localhost, IP:127.0.0.1
EOF

openssl req -x509 -newkey rsa:3072 -nodes -sha256 -days "$days" -config "$work/openssl.cnf" -extensions ca \
  -keyout "$work/ca.key" -out "$work/ca.crt" 2> /dev/null
openssl req -new -newkey rsa:3072 -nodes -sha256 -config "$work/openssl.cnf" -subj "/CN=elasticsearch" \
  -keyout "$work/elasticsearch.key" -out "$work/elasticsearch.csr" 2> /dev/null
openssl x509 -req -sha256 -days "$days" -in "$work/elasticsearch.csr" -CA "$work/ca.crt" -CAkey "$work/ca.key" \
  -CAcreateserial -extfile "$work/openssl.cnf" -extensions server -out "$work/elasticsearch.crt" 2> /dev/null

# The Elasticsearch image runs as user 1000 of group 0: it reads its key through the group.
chmod 640 "$work/elasticsearch.key" "$work/elasticsearch.crt"
chmod 644 "$work/ca.crt"
chmod 750 "$private"
chmod 755 "$public"
for file in elasticsearch.key elasticsearch.crt ca.crt; do
  cp -p "$work/$file" "$private/.$file.new"
  mv "$private/.$file.new" "$private/$file"
done
cp -p "$work/ca.crt" "$public/.ca.crt.new"
mv "$public/.ca.crt.new" "$public/ca.crt"
echo "Certificate made: $(openssl x509 -enddate -noout -in "$private/elasticsearch.crt")"
