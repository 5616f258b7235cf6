#!/bin/sh
# /bench/io.sh: runs the jobs that $bench names (with commas between), in the order of /bench/list, and what they print.
while read -r name command; do
	case ",$bench," in *",$name,"*) ;; *) continue ;; esac
	echo "BENCH begin $name"
	sh -c "$command" </dev/null
	echo "BENCH end $name"
done </bench/list
echo "BENCH done"
