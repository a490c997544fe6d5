#!/bin/bash
# Calls a method of a gateway over HTTP, signed as RFC 9421 has it, with curl and openssl alone:
#
#   export VAMBRACE_DEVICE=… VAMBRACE_SIGNING_KEY=…
#   docs/signed-request.sh https://HOST[:PORT] METHOD [PARAMETERS]
#
# The two variables are deviceId and signingKey of `vambrace --url wss://HOST[:PORT] devices identity --signing-key`,
# on a host that is paired (`vambrace devices join`). PARAMETERS are JSON; "-" reads them from standard input,
# without them there are none. With -n before the URL the signed headers are printed and nothing is sent.
#
# A gateway's own certificate is trusted with CURL_CA_BUNDLE=FILE. Exit codes are curl's; 22 where the gateway refuses.
set -euo pipefail
LC_ALL=C
send=1
if [ "${1-}" = -n ]; then send=; shift; fi
if [ $# -lt 2 ] || [ $# -gt 3 ]; then
  echo "usage: $0 [-n] https://HOST[:PORT] METHOD [PARAMETERS]" >&2; exit 2
fi
url=${1%/} method=$2 body=${3-'{}'}
: "${VAMBRACE_DEVICE:?is not set}" "${VAMBRACE_SIGNING_KEY:?is not set}"
if [[ ! $VAMBRACE_SIGNING_KEY =~ ^[0-9a-f]{64}$ ]]; then echo "error: VAMBRACE_SIGNING_KEY is no such key" >&2; exit 2; fi
if [[ $url != https://* ]]; then echo "error: $url is not https" >&2; exit 2; fi
if [ "$body" = - ]; then body=$(cat); fi

# HMAC-SHA-256 (RFC 2104) of standard input. Not `openssl -macopt`: every user of a host can read the arguments there.
sign() {
  local key inner='' outer='' byte at
  key=$VAMBRACE_SIGNING_KEY$(printf %064d 0)
  for ((at = 0; at < 128; at += 2)); do
    byte=$((16#${key:at:2}))
    printf -v inner '%s\\x%02x' "$inner" $((byte ^ 0x36))
    printf -v outer '%s\\x%02x' "$outer" $((byte ^ 0x5c))
  done
  { printf %b "$outer"; { printf %b "$inner"; cat; } | openssl dgst -sha256 -binary; } | openssl dgst -sha256 -binary
}

# curl leaves the default port out of Host, so it is not signed either.
authority=${url#https://} authority=${authority,,} authority=${authority%:443}
digest="sha-256=:$(printf %s "$body" | openssl dgst -sha256 -binary | openssl base64 -A):"
parameters='("@method" "@authority" "@path" "content-digest")'
parameters+=";created=$(date +%s);keyid=\"$VAMBRACE_DEVICE\";nonce=\"$(openssl rand -hex 16)\";alg=\"hmac-sha256\""
signature=$(printf '"@method": POST\n"@authority": %s\n"@path": %s\n"content-digest": %s\n"@signature-params": %s' \
  "$authority" "/rpc/$method" "$digest" "$parameters" | sign | openssl base64 -A)

headers() {
  printf '%s: %s\n' Content-Type application/json Content-Digest "$digest" \
    Signature-Input "vambrace=$parameters" Signature "vambrace=:$signature:"
}
if [ -z "$send" ]; then headers; exit; fi
printf %s "$body" | curl -sS --fail-with-body -H @<(headers) --data-binary @- "$url/rpc/$method"
