"""Debian's own programs: on the small root file system a login on the console, then bash with job
control, python, threads, a pseudo-terminal; on the full one what a developer does (tests/developer.py).

usage: python3 tests/debian.py [--linux] [--debug] [small] [debian] [CHECK...]

Both without a name; of the named checks only those."""
import os
import re
import subprocess
import sys

import boot
import developer
import shell
from console import Console, Failure, Hang, good, want
from machine import ROOT, Machine
from report import Group, Report

PROMPT = rb'# '


def rootfs(name):
    """The archive of a root file system, made if it is not there (scripts/mkrootfs)."""
    done = subprocess.run([os.path.join(ROOT, 'scripts', 'mkrootfs'), name], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def login(console, machine):
    """agetty asks for a name, login lets root in without a password, bash starts as a login shell."""
    console.expect(rb'linnet login: ')
    console.send('root\n')
    console.expect(PROMPT)
    output = good(console, 'tty; echo $0; id -un')
    want(output.split() == ['/dev/ttyAMA0', '-bash', 'root'], f'the login shell says {output!r}')


def job_control(console, machine):
    shell.job_control(console, machine)
    console.send('cat\n')
    console.expect(rb'cat\r\n')
    console.send_until(b'ping\n', rb'ping\r\nping\r\n')
    console.send(b'\x03')
    # The key drops what was typed behind it.
    console.expect(PROMPT)
    # As it is typed: what `good` sends begins with a command of its own.
    console.send('echo status $?\n')
    console.expect(rb'status 130')
    console.expect(PROMPT)


def bash_features(console, machine):
    good(console, 'diff <(seq 1 3) <(printf "1\\n2\\n3\\n")')
    good(console, 'coproc cat; echo through >&${COPROC[1]}; read -r line <&${COPROC[0]}; kill $COPROC_PID; echo "$line"', r'through')
    good(console, 'x=$(seq 1 20000 | sort -rn | head -1); echo $x | tee /tmp/x | wc -c', r'(?m)^6$')
    good(console, 'trap "echo caught" USR1; kill -USR1 $$; trap - USR1', r'caught')


def coreutils(console, machine):
    good(console, 'mkdir -p /tmp/a/b && cp -a /etc /tmp/a/b && diff -r /etc /tmp/a/b/etc 2>/dev/null; ls -laR /tmp/a | md5sum', limit=300)
    good(console, 'dd if=/dev/urandom of=/tmp/r bs=64k count=16 status=none && sha256sum /tmp/r | sha256sum -c - 2>/dev/null || sha256sum /tmp/r')
    good(console, 'stat -c "%A %U:%G" /etc/shadow', r'-rw-r----- root:shadow')
    good(console, 'rm -r /tmp/a /tmp/r')


def procps(console, machine):
    output = good(console, 'ps -eo pid,ppid,tty,stat,comm')
    want(re.search(r'^ +1 +0 \? .*init$', output, re.M), f'ps lacks init: {output[:300]!r}')
    want(re.search(r'ttyAMA0 +\S+ +bash$', output, re.M), f'ps lacks the shell on its terminal: {output[-300:]!r}')
    good(console, 'free -m', r'Mem:')
    good(console, 'top -b -n1 | head -8', r'Tasks:')


def python(console, machine):
    good(console, "python3 -c 'import sys, os; print(sys.version_info[:2], os.getpid() > 1)'", r'\(3, 11\) True', limit=300)
    program = ('import subprocess, threading\n'
               'total = []\n'
               'lock = threading.Lock()\n'
               'def work(n):\n'
               '    for i in range(200):\n'
               '        with lock: total.append(n)\n'
               'threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]\n'
               'for t in threads: t.start()\n'
               'for t in threads: t.join()\n'
               'print("threads", len(total))\n'
               'out = subprocess.run(["sh", "-c", "cat; exit 3"], input=b"given", capture_output=True)\n'
               'print("process", out.stdout.decode(), out.returncode)\n')
    console.send("cat > /tmp/p.py <<'END-OF-PROGRAM'\n" + program + 'END-OF-PROGRAM\n')
    good(console, 'python3 /tmp/p.py', r'threads 3200\nprocess given 3', limit=300)


def pseudo_terminal(console, machine):
    good(console, 'script -qec "tty; stty size; ls -l \\$(tty)" /tmp/typescript', r'/dev/pts/0\n(?s:.*)crw--w----')
    good(console, 'script -qec "exit 7" /dev/null; echo ended $?', r'ended 7')
    good(console, 'grep -c pts/0 /tmp/typescript', r'(?m)^[12]$')


def strace(console, machine):
    output = good(console, 'strace -f -o /tmp/trace sh -c "echo traced | cat"; grep -c . /tmp/trace', r'traced')
    want(int(output.split()[-1]) > 20, f'strace wrote {output!r}')
    good(console, "grep -E 'execve\\(\"/(usr/)?bin/sh\"' /tmp/trace", r'= 0')
    good(console, "grep -c 'exited with 0' /tmp/trace", r'(?m)^[23]$')


SMALL = [job_control, bash_features, coreutils, procps, python, pseudo_terminal, strace]


def run(group, name, checks, machine):
    """Logs in and runs the checks, all in one boot."""
    machine = machine.with_(initrd=rootfs(name))
    with Console(machine.command(), boot.log_path(f'{group.name} {name}'), boot.LIMIT) as console:
        for check in [login, *checks, shell.no_complaint, shell.power_off]:
            name = f'debian_{check.__name__}'
            gap = group.report.gap(f'boot:{name}', group.name)
            if gap is not None:
                group.report.skip(f'[{group.name}] {name}', gap)
                continue
            try:
                check(console, machine)
                group.line(True, name)
            except Failure as failure:
                group.line(False, name, f'{failure}\n{console.tail()}')
                if isinstance(failure, Hang):
                    group.line(False, 'rest', 'the console does not answer any more')
                    return


def run_all(report, linux=False, profile='release', words=()):
    """Both root file systems, or what the words name of them."""
    systems = [name for name in ('small', 'debian') if name in words] or ['small', 'debian']
    for name, mem, checks in ('small', '1G', SMALL), ('debian', '3G', developer.CHECKS):
        named = [check for check in checks if check.__name__ in words]
        if name in systems and (named or not set(words) - {'small', 'debian'}):
            run(Group(report, f'debian {"linux" if linux else profile}'), name, named or checks,
                Machine(linux=linux, profile=profile, smp=2, mem=mem))


def main():
    words = sys.argv[1:]
    report = Report()
    run_all(report, '--linux' in words, 'debug' if '--debug' in words else 'release',
            [word for word in words if not word.startswith('--')])
    return report.close()


if __name__ == '__main__':
    sys.exit(main())
