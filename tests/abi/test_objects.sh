#!/bin/sh
# What the linker and the loader see of the library:
#   - a kernel object of an ISA has only that ISA's kernels of kernels.h with external linkage, and
#     all objects of the ISA together have every one of them. Else the linker may take a helper
#     compiled for AVX-512 for all;
#   - no object has writable data;
#   - the library calls nothing that prints, ends the process or has global state;
#   - it is hardened.
#
#     test_objects.sh LIBRARY OBJECTS KERNELS_H BUILD_TYPE
#
# OBJECTS lists the object files: "ISA file", or "- file" for those that hold no kernels. In a
# Debug build the library has assertions.
set -eu
library=$1
objects=$2
kernels_h=$3
build_type=$4
for tool in nm objdump readelf diff; do
    command -v $tool >/dev/null || { echo "skipped: no $tool"; exit 77; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export LC_ALL=C
status=0
fail() {
    echo "FAIL: $*"
    status=1
}

# Names of variables that may be written, each with a reason.
writable_allowed=''
# Functions that the library may not call.
forbidden='abort|_?_?exit|_Exit|quick_exit|atexit|v?printf|puts|putchar|putc|perror|rand|srand'
forbidden="$forbidden|random|srandom|drand48|lrand48|setlocale|strtok|signal|sigaction|system"
forbidden="$forbidden|__v?printf_chk|stdout|openblas_set_num_threads"
[ "$build_type" = Debug ] || forbidden="$forbidden|__assert_fail|__assert"

# ---- Kernel objects ----
sed -n 's/^ *K([^,]*, *\([a-z0-9_]*\) *,.*/\1/p' "$kernels_h" | sort >"$work/names"
[ -s "$work/names" ] || fail "no kernels found in $kernels_h"
for isa in $(awk '$1 != "-" { print $1 }' "$objects" | sort -u); do
    sed "s/.*/slg_&_$isa/" "$work/names" | sort >"$work/want"
    awk -v isa="$isa" '$1 == isa { print substr($0, length(isa) + 2) }' "$objects" |
        while IFS= read -r object; do
            nm --defined-only --extern-only "$object" | awk 'NF == 3 { print $3 }'
        done | sort >"$work/have"
    diff "$work/want" "$work/have" ||
        fail "$isa: < a kernel of kernels.h that is missing, > external but not in kernels.h"
done

# ---- Writable data ----
# .data.rel.ro is constant after relocation.
cut -d ' ' -f 2- "$objects" >"$work/files"
[ -s "$work/files" ] || fail "no objects listed"
while IFS= read -r object; do
    [ -s "$object" ] || fail "$object is missing"
    objdump -t "$object" | awk -v allowed=" $writable_allowed " '
        match($0, /\*COM\*|[ \t]\.t?(data|bss)(\.[^ \t]+)?\t/) {
            section = substr($0, RSTART, RLENGTH)
            if (section ~ /\.data\.rel\.ro/ || $(NF - 1) ~ /^0+$/) next
            if (index(allowed, " " $NF " ") == 0) print $NF, "in" section
        }' >"$work/written"
    if [ -s "$work/written" ]; then
        cat "$work/written"
        fail "$object has writable data"
    fi
done <"$work/files"

# ---- Calls ----
nm -D --undefined-only "$library" | awk '{ sub(/@.*/, "", $NF); print $NF }' >"$work/undefined"
[ -s "$work/undefined" ] || fail "no undefined symbols: nm told nothing"
if grep -xE "$forbidden" "$work/undefined"; then fail "the library calls these"; fi

# ---- Hardening ----
readelf -dW "$library" >"$work/dynamic"
readelf -lW "$library" >"$work/segments"
grep -q 'BIND_NOW\|FLAGS_1.*NOW' "$work/dynamic" || fail "not bound at load (BIND_NOW)"
grep -q 'GNU_RELRO' "$work/segments" || fail "no RELRO"
grep -q 'GNU_STACK' "$work/segments" || fail "no GNU_STACK: the stack may be executable"
if grep -E 'GNU_STACK.* RWE ' "$work/segments"; then fail "executable stack"; fi
if grep -E 'LOAD.* RWE ' "$work/segments"; then fail "a segment both written and run"; fi
if grep -E 'TEXTREL' "$work/dynamic"; then fail "text relocations"; fi
if grep -E '\((RPATH|RUNPATH)\)' "$work/dynamic"; then fail "an RPATH"; fi
grep -q 'SONAME.*\[libsoftlogit\.so\.0\]' "$work/dynamic" || fail "the SONAME is another"
exit $status
