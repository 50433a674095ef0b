#!/bin/sh
# What a reader relies on and no compiler looks at, of all C and C++ of the tree:
#   - lines of at most 96 columns (clang-format breaks code and strings, not comments);
#   - no tabs, no white space at the end of a line, a newline at the end of the file;
#   - in src, include and tests a file is found by its name alone: no two have the same.
# usage: test_lint.sh SOURCE_DIR
set -u
cd "$1" || exit 1
LC_ALL=C.UTF-8
export LC_ALL
files=$(find src include tests bench docs \( -name '*.[ch]' -o -name '*.cc' \) | sort)
bad=0
say() # of the lines on standard input: what is wrong with them
{
    found=$(cat)
    [ -z "$found" ] && return
    printf '%s:\n%s\n' "$1" "$found"
    bad=1
}

[ "$(echo "$files" | wc -l)" -gt 100 ] || { echo "few files: not the source tree?"; exit 1; }
tab=$(printf '\t')
say "more than 96 columns" <<END
$(grep -nE '.{97,}' $files | cut -c1-160)
END
say "a tab" <<END
$(grep -n "$tab" $files)
END
say "white space at the end" <<END
$(grep -nE ' +$' $files)
END
say "no newline at the end" <<END
$(for f in $files; do [ -z "$(tail -c 1 "$f")" ] || echo "$f"; done)
END
say "the same name" <<END
$(find src include tests -name '*.[ch]' | sed 's#.*/##' | sort | uniq -d)
END
exit $bad
