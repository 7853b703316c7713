#!/bin/sh
# Copy what a running container needs of a Python base image to FOLDER: the system and Python with its
# bytecode, without pip and Python's own tests. Runs as root in a build stage of both Dockerfiles.
#
#   strip_base_image.sh FOLDER
set -eu
image=${1:?the folder that becomes the image}
library=$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
python -m compileall -q --invalidation-mode unchecked-hash -x 'test|lib2to3|idlelib' "$library"

mkdir -p "$image/var/lib" "$image/proc" "$image/sys" "$image/dev" "$image/run" "$image/home"
mkdir -p -m 1777 "$image/tmp" "$image/var/tmp"
mkdir -p -m 700 "$image/root"
for name in bin sbin lib lib32 lib64 libx32 usr etc var/lib/dpkg; do
  [ ! -e "/$name" ] || cp -a "/$name" "$image/$name"
done

rm -rf "$image/etc/hosts" "$image/etc/hostname" "$image/etc/resolv.conf" "$image/etc/pip.conf" \
  "$image/usr/share/python-wheels" "$image/usr/share/doc" "$image/usr/share/man" "$image/usr/share/locale"
for name in test idlelib lib2to3 ensurepip tkinter turtledemo; do
  rm -rf "$image$library/$name"
done
find "$image/usr" -depth -type d '(' -name pip -o -name 'pip-*' -o -name setuptools -o -name 'setuptools-*' \
  -o -name wheel -o -name 'wheel-*' -o -name pkg_resources ')' \
  '(' -path '*/dist-packages/*' -o -path '*/site-packages/*' ')' -exec rm -rf '{}' +
rm -f "$image"/usr/bin/pip* "$image"/usr/local/bin/pip*

echo 'qna:x:10001:10001:qna:/tmp:/usr/sbin/nologin' >>"$image/etc/passwd"
echo 'qna:x:10001:' >>"$image/etc/group"
