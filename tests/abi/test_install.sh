#!/bin/sh
# Installs to a scratch prefix and builds a program against it twice: by CMake's find_package and
# by pkg-config. The prefix is not the one that was configured: installed files may be moved.
#
#     test_install.sh CMAKE BUILD_DIR CC GENERATOR
set -eu
cmake=$1
build=$2
cc=$3
generator=$4
here=$(cd "$(dirname "$0")" && pwd)
command -v pkg-config >/dev/null || { echo "skipped: no pkg-config"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/prefix

unset DESTDIR
"$cmake" --install "$build" --prefix "$prefix" >"$work/log" || { cat "$work/log"; exit 1; }
libdir=$(dirname "$(find "$prefix" -name 'libsoftlogit.so')")
for file in "$prefix/include/softlogit/softlogit.h" "$libdir/libsoftlogit.so.0" \
    "$libdir/pkgconfig/softlogit.pc" "$libdir/cmake/softlogit/softlogitConfig.cmake"; do
    [ -f "$file" ] || { echo "not installed: $file"; exit 1; }
done
if grep -rlF "$build" "$libdir/pkgconfig" "$libdir/cmake" "$prefix/include"; then
    echo "these name the build folder"
    exit 1
fi

echo "-- find_package"
CC=$cc "$cmake" -S "$here/consumer" -B "$work/consumer" -G "$generator" \
    -DCMAKE_PREFIX_PATH="$prefix" >"$work/log" 2>&1 &&
    "$cmake" --build "$work/consumer" >>"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
"$work/consumer/consumer"

echo "-- pkg-config"
export PKG_CONFIG_PATH="$libdir/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}"
# shellcheck disable=SC2046 # a list of words
"$cc" "$here/consumer/consumer.c" -o "$work/by_pkg_config" $(pkg-config --cflags --libs softlogit)
LD_LIBRARY_PATH=$libdir "$work/by_pkg_config"

if [ -f "$prefix/bin/softlogit-info" ]; then
    echo "-- softlogit-info"
    LD_LIBRARY_PATH=$libdir "$prefix/bin/softlogit-info"
fi
