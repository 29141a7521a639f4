#!/bin/sh
# Install what is missing of the Debian packages named; nothing is touched when all are there.
set -eu
missing=
for p; do
	case $(dpkg-query -W -f '${Status}' "$p" 2>/dev/null || :) in
	*' installed') ;;
	*) missing="$missing $p" ;;
	esac
done
[ -n "$missing" ] || exit 0
command -v apt-get >/dev/null || { echo "deps: not a Debian system; install:$missing" >&2; exit 69; }
sudo=
[ "$(id -u)" -eq 0 ] || sudo=sudo
echo "deps: installing$missing"
$sudo apt-get update -qq
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
