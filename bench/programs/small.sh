# A script full of small commands.
set -e
mkdir -p /tmp/small
cd /tmp/small
i=0
while [ $i -lt 8 ]; do
	echo "line $i of many" >"file$i"
	cat "file$i" "file$i" | sed "s/many/$(expr $i \* 3)/" >"copy$i"
	grep -c line "copy$i" >>counts
	ls | wc -l >>counts
	basename "/a/b/file$i.c" .c >>names
	cut -d' ' -f2 "copy$i" | sort -r | head -n 1 >>names
	cp "copy$i" "old$i"
	mv "old$i" "older$i"
	test "$(tail -n 1 "older$i" | tr a-z A-Z)" && date -u -d "@$((i * 86400))" +%F >>names
	i=$((i + 1))
done
cat counts names | cksum
find . -name 'copy*' | xargs cat | cksum
cd /
rm -r /tmp/small
