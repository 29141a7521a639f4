#!/bin/sh
# pack.sh BUILD [DIR] - llmc-pack of a large model beside cp of the same bytes, in a memory cgroup of 500 MB
#
# A model of random weights (LAYERS, default 8, of Llama-3-8B's, 5.6 GB; 32 make 16 GB) is rounded plainly in DIR, then
# packed and copied in turn, ROUNDS times (3), each time with nothing of it in the page cache. cp and sync write the
# checkpoint that llmc-pack made; llmc-pack also reads and hashes the source. Exits with 1 when it needed more memory
# or was slower than 70 % of cp.
set -eu
dir=${0%/*}
build=$1
tmp=$(mktemp -d "${2:-${TMPDIR:-/var/tmp}}/llmc-bench-pack.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' HUP INT TERM
layers=${LAYERS:-8}
bin=$build/bin
need=$((layers * 436208 * 2 + 2 * 1050674 * 3))
have=$(df -Pk "$tmp" | awk 'NR == 2 { print $4 }')
[ "$have" -gt "$need" ] || { echo "pack.sh: $tmp has $have KiB, want $need" >&2; exit 71; }

now() {
	date +%s.%N
}

forget() { # what the files of a directory have in the page cache
	sync -f "$tmp"
	find "$@" -type f -exec dd of={} oflag=nocache conv=notrunc,fdatasync count=0 status=none \;
}

"$build/t/random-model" -o "$tmp/model" --layers "$layers"
"$bin/llmc-shard" -C "$tmp/w" -m "$tmp/model" -s "${SCHEME:-W4A16}" -a rtn -q
"$bin/llmc-gptq" -C "$tmp/w" -q </dev/null >/dev/null
du -sm "$tmp/model" | awk '{ print "source\t" $1 " MiB" }'
for round in $(seq "${ROUNDS:-3}"); do
	rm -rf "$tmp/out" "$tmp/copy"
	forget "$tmp/model" "$tmp/w/weights"
	from=$(now)
	"$build/t/peak" -m 500000000 -o "$tmp/peak" "$bin/llmc-pack" -C "$tmp/w" -o "$tmp/out" -q ${PACK:-}
	to=$(now)
	forget "$tmp/out"
	bytes=$(du -sb "$tmp/out" | cut -f1)
	from2=$(now)
	cp -r "$tmp/out" "$tmp/copy"
	sync -f "$tmp/copy"
	to2=$(now)
	echo "$bytes $from $to $from2 $to2 $(sed 's/^peak=\([0-9]*\).*/\1/' "$tmp/peak")" | awk -v round="$round" '{
		pack = $3 - $2; cp = $5 - $4
		printf "round %d\t%.0f MB in shards\tpack %.1f s\tcp %.1f s (%.0f MB/s)\t%.0f %% of its rate\t%.0f MB of memory\n",
		    round, $1 / 1e6, pack, cp, $1 / 1e6 / cp, 100 * cp / pack, $6 / 1e6
	}' | tee -a "$tmp/rounds"
	cat "$tmp/peak"
done
# The best round of each: other work on the machine makes either slower, never faster.
awk -F'\t' '{
	split($3, p, " "); split($4, c, " "); split($6, m, " ")
	if (NR == 1 || p[2] < pack) pack = p[2]
	if (NR == 1 || c[2] < cp) cp = c[2]
	if (m[1] > most) most = m[1]
}
END {
	printf "best\tpack %.1f s\tcp %.1f s\t%.0f %%\t%.0f MB\n", pack, cp, 100 * cp / pack, most
	exit !(cp / pack >= 0.7 && most < 500)
}' "$tmp/rounds"
