#!/bin/sh
# native.sh ROOT CPUS: the suite on the host itself, in a copy of ROOT in memory, as a guest has it. Called in a mount
# namespace of its own.
set -e
mount -t tmpfs tmpfs /mnt
cp -R -P --preserve=mode,links "$1/." /mnt
mount --rbind /dev /mnt/dev
mount --rbind /proc /mnt/proc
exec taskset -c "$2" chroot /mnt /bin/sh /bench/suite.sh
