#!/bin/sh
# The shared library exports what softlogit.map lists, no more and no less, and the map lists
# every SLG_API function of the headers.
#
#     test_exports.sh LIBRARY SOURCE_DIR
set -eu
library=$1
source=$2
for tool in nm diff; do
    command -v $tool >/dev/null || { echo "skipped: no $tool"; exit 77; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# slg_name@@SOFTLOGIT_0.1; the node itself is an absolute symbol.
nm -D --defined-only "$library" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' |
    LC_ALL=C sort >"$work/library"
sed -n 's/^ *\(slg_[a-z0-9_]*\);.*/\1/p' "$source/src/softlogit.map" |
    LC_ALL=C sort >"$work/map"
sed -n 's/^SLG_API [^(]*\(slg_[a-z0-9_]*\)(.*/\1/p' "$source"/include/softlogit/*.h |
    LC_ALL=C sort >"$work/headers"
declared=$(cat "$source"/include/softlogit/*.h | grep -c '^SLG_API')

status=0
[ "$(wc -l <"$work/headers")" -eq "$declared" ] ||
    { echo "an SLG_API declaration does not have its name on its first line"; status=1; }
[ "$declared" -gt 0 ] || { echo "no declarations found"; status=1; }
diff "$work/map" "$work/library" || { echo "< in the map only, > exported only"; status=1; }
diff "$work/headers" "$work/map" || { echo "< in a header only, > in the map only"; status=1; }
nm -D --defined-only "$library" | awk '$2 == "T" && $3 !~ /@@SOFTLOGIT_/' | grep . &&
    { echo "exported without a version"; status=1; }
exit $status
