#!/bin/sh
# One variation from vampd with nothing but curl.
#
#   clients/curl/vamp.sh IN OUT [PARAMS]
#
#   IN      any audio file
#   OUT     .wav, .flac or .ogg: the variation; .json: audio, mask and timings
#   PARAMS  JSON, or @FILE: {"preset": "subtle", "seed": 7}; docs/api.md has all of it
#
# VAMPD is the daemon's address, http://127.0.0.1:8765 where it is not set; VAMP_KEY the key, where it wants one. A full
# queue (429) is waited for: curl heeds Retry-After. Exit code 0, or 1 with the daemon's problem on standard error.
set -eu

if [ $# -lt 2 ] || [ $# -gt 3 ]; then
  sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
case $2 in
  *.wav) accept=audio/wav ;;
  *.flac) accept=audio/flac ;;
  *.ogg) accept=audio/ogg ;;
  *.json) accept=application/json ;;
  *) echo "vamp.sh: $2 must end in .wav, .flac, .ogg or .json" >&2; exit 2 ;;
esac
case ${3-"{}"} in
  @*) params="<${3#@}" ;;
  *) params=${3-"{}"} ;;
esac

# To curl a comma or a semicolon ends a file's name, unless it is quoted.
input=$(printf '%s' "$1" | sed 's/[\\"]/\\&/g')

# Beside the result and renamed: a failure leaves no half of it, and no old one is lost.
answer=$(mktemp "$2.XXXXXX")
trap 'rm -f "$answer"' EXIT
# The key goes in over standard input: a command line is everybody's to read.
status=$(printf '%s' "${VAMP_KEY:+header = \"Authorization: Bearer $VAMP_KEY\"}" | curl -K - -sS --retry 5 -o "$answer" -w '%{http_code}' -H "Accept: $accept" -F "audio=@\"$input\"" -F "params=$params" \
  "${VAMPD-http://127.0.0.1:8765}/v1/vamp") || exit 1
if [ "$status" != 200 ]; then
  cat "$answer" >&2
  echo >&2
  exit 1
fi
mv "$answer" "$2"
trap - EXIT
