# usage: stress.sh SECONDS WORKERS: forks, pipes, files and signals until the time is over.
# Each worker leaves a file when something went wrong.
seconds=$1 workers=$2
end=$(($(cut -d. -f1 /proc/uptime) + seconds))
rm -rf /tmp/stress && mkdir /tmp/stress && cd /tmp/stress || exit 1
going() { [ "$(cut -d. -f1 /proc/uptime)" -lt $end ]; }
worker() {
	mkdir $1 && cd $1 || return 1
	while going; do
		[ "$(seq 1 500 | grep 7 | wc -l)" = 95 ] || touch ../bad-pipe
		for i in 1 2 3 4 5; do echo "$1 $i" >f$i && mv f$i g$i && ln g$i h$i && rm g$i; done
		[ "$(cat h* | wc -l)" = 5 ] || touch ../bad-file
		dd if=/dev/zero of=big bs=64k count=8 2>/dev/null && truncate -s 1000 big
		[ "$(wc -c <big)" = 1000 ] || touch ../bad-size
		rm -f h* big
		sleep 100 &
		p=$!
		kill -STOP $p && kill -CONT $p && kill $p
		wait $p
		[ $? = 143 ] || touch ../bad-signal
		for i in 1 2 3 4 5 6 7 8; do (exit $i) & done
		wait
		(sleep 0 & sleep 0 & wait) | cat
	done
}
n=0
while [ $n -lt $((workers * 2)) ]; do
	worker w$n &
	n=$((n + 1))
done
wait
ls bad-* 2>/dev/null && echo "stress: failed" && exit 1
cd / && rm -rf /tmp/stress
echo "stress: done"
