#!/bin/bash
# Runs stress-ng's stressors in the guest, four of each for ten seconds with --verify, and writes the
# verdicts to /tmp/outcomes.
#
# usage: stress-ng.sh STRESSOR...
cd /tmp || exit 1
: >/tmp/outcomes
for stressor; do
	printf 'start\t%s\n' "$stressor" >>/tmp/outcomes
	if ! stress-ng --stressors | tr ' ' '\n' | grep -qx "$stressor"; then
		printf 'absent\t%s\n' "$stressor" >>/tmp/outcomes
		continue
	fi
	echo "---- $stressor"
	timeout -s KILL 240 stress-ng --timestamp --"$stressor" 4 --verify --timeout 10 --oomable 2>&1
	status=$?
	# stress-ng(1), "EXIT STATUS".
	case $status in
	0) outcome=pass ;;
	2 | 5 | 7) outcome=fail ;;
	3 | 4 | 6) outcome=skip ;;
	124 | 137) outcome=hang ;;
	*) outcome=error ;;
	esac
	echo "---- $stressor status $status"
	printf '%s\t%s\n' $outcome "$stressor" >>/tmp/outcomes
done
printf 'end\t\n' >>/tmp/outcomes
