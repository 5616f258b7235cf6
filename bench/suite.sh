#!/bin/sh
# /bench/suite.sh: runs the workloads that $bench names (with commas between), in the order of /bench/list. The same in
# a guest and, by chroot, on the host.
export PATH=/usr/bin:/bin:/usr/sbin:/sbin HOME=/root LC_ALL=C TMPDIR=/tmp
cd /
/bench/program cpus
while read -r name command; do
	case ",$bench," in *",$name,"*) ;; *) continue ;; esac
	if [ "$command" ]; then
		/bench/program time "$name" sh -c "$command" </dev/null
	else
		/bench/program run "$name" </dev/null
	fi || echo "BENCH failed $name"
done </bench/list
echo "BENCH done"
