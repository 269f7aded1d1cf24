#!/bin/bash
# Runs the tests of busybox's source in the guest, on Debian's busybox, and writes their outcomes to
# /tmp/outcomes. A test's name that comes again gets a number.
cp -a /usr/share/busybox /tmp/busybox && cd /tmp/busybox/testsuite || exit 1
cp /bin/busybox ..
PATH=/usr/sbin:/usr/bin
: >/tmp/outcomes
echo "---- $(busybox | head -1)"
./runtest -v 2>&1 | while IFS= read -r line; do
	printf '%s\n' "$line"
	case $line in
	PASS:*) printf 'pass\t%s\n' "${line#PASS: }" ;;
	FAIL:*) printf 'fail\t%s\n' "${line#FAIL: }" ;;
	SKIPPED:* | UNTESTED:*) printf 'skip\t%s\n' "${line#*: }" ;;
	esac >>/tmp/outcomes
done
# What ran last is in the output, if this line is missing.
awk -F '\t' 'BEGIN { OFS = FS } { if (seen[$2]++) $2 = $2 " (" seen[$2] ")"; print }' /tmp/outcomes >/tmp/named && mv /tmp/named /tmp/outcomes
printf 'end\t\n' >>/tmp/outcomes
