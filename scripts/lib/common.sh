# shellcheck shell=bash
# What the scripts in bash share.
# shellcheck disable=SC2034 # they use it

# The scripts in Python know it too: see scripts/vm.
cache=${TCP_AUTHOPT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tcp-authopt}

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }

# Prints the comment at the top of the script.
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }

# The compiler under the name that a kernel's config has for it: "gcc-14 (Debian 14.2.0-19) 14.2.0",
# "Debian clang version 19.1.7 (3+b1)".
config_cc() { sed -n 's/^CONFIG_CC_VERSION_TEXT="\(Debian \)\?\([^ ]*\) .*/\2/p' "$1"; }

# make with all CPUs.  Its usual jobserver is a file in /tmp named after its process id, which in
# lib/in-root is always the same: it would meet those of other runs, and of runs that were killed.
make_jobs=(make --jobserver-style=pipe -j"$(nproc)")
