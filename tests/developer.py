"""gcc, gdb and strace on the full root file system: what a developer does there.

The trace of `sh -c 'ls | wc'` is compared with tests/suites/strace.txt, which Debian's kernel gave, process
by process; what is free is replaced by a word: numbers of processes and inodes, addresses, times, random
bytes, and the list of file systems."""
import base64
import os
import re

from console import good, want
from machine import ROOT

TRACE = os.path.join(ROOT, 'tests', 'suites', 'strace.txt')

PROGRAM = r'''
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static volatile int hits;

static void handler(int signal) {
	hits += signal;
}

static int inner(int number) {
	raise(SIGUSR1);
	return number + 1;
}

static void *work(void *argument) {
	int number = *(int *)argument;
	number = inner(number);
	number += 2;
	*(int *)argument = number;
	return NULL;
}

int main(int argc, char **argv) {
	int numbers[3] = {10, 20, 30};
	pthread_t threads[3];
	signal(SIGUSR1, handler);
	for (int i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, work, &numbers[i]);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	printf("%d %d %d %d\n", numbers[0], numbers[1], numbers[2], hits);
	fflush(stdout);
	if (argc > 1)
		abort();
	return 0;
}
'''

BIG = r'''
import random
lines = ["#include <stdio.h>"]
random.seed(1)
for i in range(2000):
    lines += [f"static unsigned f{i}(unsigned x) {{", f"\tunsigned y = x * {random.randrange(1, 1 << 31) | 1}u;",
              f"\tif (y % {random.randrange(2, 9)} == 0) y ^= x >> {random.randrange(1, 31)};", f"\treturn y + {i}u;", "}"]
lines += ["int main(void) {", "\tunsigned x = 1;"] + [f"\tx = f{i}(x);" for i in range(2000)] + ['\tprintf("%u\\n", x);', "\treturn 0;", "}"]
open("/tmp/big.c", "w").write("\n".join(lines) + "\n")
value = 1
random.seed(1)
for i in range(2000):
    multiplier = random.randrange(1, 1 << 31) | 1
    divisor, shift = random.randrange(2, 9), random.randrange(1, 31)
    result = value * multiplier % (1 << 32)
    if result % divisor == 0:
        result ^= value >> shift
    value = (result + i) % (1 << 32)
print(value)
'''


def put(console, path, text):
    """Types a file, in letters that the line editor leaves alone."""
    letters = base64.encodebytes((text.strip() + '\n').encode()).decode()
    console.send(f"base64 -d > {path} <<'END'\n{letters}END\n")
    good(console, f'[ -s {path} ]')


def gcc_threads(console, machine):
    put(console, '/tmp/threads.c', PROGRAM)
    good(console, 'cd /tmp && gcc -g -O0 -pthread -o threads threads.c && ./threads', r'(?m)^13 23 33 30$', limit=300)


def gcc_big(console, machine):
    put(console, '/tmp/big.py', BIG)
    good(console, '[ $(python3 /tmp/big.py; wc -l < /tmp/big.c) ]; wc -l < /tmp/big.c', r'(?m)^1\d{4}$', limit=300)
    good(console, 'gcc -o /tmp/big /tmp/big.c && [ "$(/tmp/big)" = "$(python3 /tmp/big.py)" ] && echo equal', r'equal', limit=900)


def gdb(console, commands, pattern, program='/tmp/threads', before=''):
    """Runs gdb with commands; its output must match."""
    put(console, '/tmp/commands', 'set pagination off\nset confirm off\nset debuginfod enabled off\n'
        'handle SIGUSR1 nostop noprint pass\n' + commands)
    return good(console, f'{before}gdb -batch -nx -x /tmp/commands {program} 2>&1', pattern, limit=400)


def gdb_thread(console, machine):
    """A breakpoint in a thread, and a step over a call there."""
    gdb(console, 'break work\nrun\ninfo threads\nset scheduler-locking on\nnext\nprint number\nnext\nprint number\ndelete\n'
        'set scheduler-locking off\ncontinue',
        r'(?s)Thread 2 "threads" hit Breakpoint 1(?:.1)?, work \(argument.*\* 2 +Thread .*work \(.*\$1 = 10.*\$2 = 11.*13 23 33 30.*exited normally')


def gdb_signal(console, machine):
    """A backtrace through a signal handler, and out of it."""
    gdb(console, 'break handler\nrun\nbacktrace\nup 1\ndelete\nfinish\ncontinue',
        r'(?s)hit Breakpoint 1(?:.1)?, handler \(signal=10\).*#0 +handler \(signal=10\).*#1 +<signal handler called>\s.* in raise.* in inner \(number=\d+\)'
        r'.* in work \(argument=.*13 23 33 30.*exited normally')


def gdb_step(console, machine):
    """One instruction is four bytes; a step over a call in which a handler runs; a watchpoint of the hardware."""
    gdb(console, 'break inner\nrun\nset scheduler-locking on\nup\nset $caller = $pc\ndown\nset $before = $pc\nstepi\nprint $pc - $before\n'
        'next\nprint hits\nfinish\nprint $pc == $caller', r'(?s)\$1 = 4\s.*return number.*\$2 = 10\s.*Value returned is \$3 = 11.*\$4 = 1\s')
    gdb(console, 'break main\nrun\nwatch hits\ncontinue\nbacktrace 1\ndelete\ncontinue',
        r'(?s)[Hh]ardware watchpoint 2: hits.*Old value = 0\s+New value = 10\s.*#0 +handler.*13 23 33 30.*exited normally')


def gdb_attach(console, machine):
    """A running process, stopped and left alone again."""
    good(console, 'sleep 1000 & attached=$!', None)
    gdb(console, 'info inferiors\nbacktrace 1\ndetach', r'(?s)process \d+.*\[Inferior 1 \(process \d+\) detached\]', program='-p $attached')
    good(console, 'grep State: /proc/$attached/status; kill $attached', r'State:\s+S')


def gdb_core(console, machine):
    """A core file at the place that core_pattern names, with all threads of the process."""
    good(console, 'echo /tmp/core.%e > /proc/sys/kernel/core_pattern; ulimit -c unlimited; rm -f /tmp/core.*')
    output, status = console.run('(./threads abort)')
    want(status == 134 and '13 23 33 30' in output, f'abort has status {status}: {output!r}')
    gdb(console, 'info threads\nbacktrace\nframe function main\nprint numbers\nprint hits',
        r'(?s)Core was generated by `./threads abort\'.*terminated with signal SIGABRT.*in abort.*main \(argc=2.*\{13, 23, 33\}.*= 30',
        program='/tmp/threads /tmp/core.threads')
    gdb(console, 'break inner\nrun\ngenerate-core-file /tmp/core.live\nkill', r'Saved corefile /tmp/core.live')
    gdb(console, 'info threads\nbacktrace', r'(?s)LWP.*inner \(number=\d+\).*work \(argument=', program='/tmp/threads /tmp/core.live')


FREE = [
    (r'0x[0-9a-f]+', 'ADDRESS'),
    (r'(?<=getrandom\(")[^"]*', 'BYTES'),
    (r'(st_ino=|d_ino=)\d+', r'\1INODE'),
    (r'(?<=read\(3, ")nodev.*', 'FILE SYSTEMS'),
    (r'(si_[us]time=)\d+( /\* .*? \*/)?', r'\1TIME'),
    (r'(wait4\(-1, \[.* = |clone\(.* = |set_tid_address\(.* = |getpp?id\(\) += |si_pid=|rt_sigreturn\(.*\) = )\d+', r'\1PID'),
    # Nobody has set the speed of the console: the kernels differ in what they believe of it.
    (r'(c_cflag=)B\d+', r'\1SPEED'),
    (r' += ', ' = '),
]


def processes(trace):
    """The traces of a log of `strace -f`: the first process, then the others sorted, without what is free."""
    traces = {}
    for line in trace.splitlines():
        pid, _, text = line.partition(' ')
        if not pid.isdigit():
            continue
        text = text.strip()
        if match := re.match(r'<\.\.\. \w+ resumed>(.*)', text):
            text = traces[pid].pop() + match.group(1)
        elif text.endswith(' <unfinished ...>'):
            traces.setdefault(pid, []).append(text.removesuffix(' <unfinished ...>'))
            continue
        traces.setdefault(pid, []).append(text)
    first, *others = [without_free(lines) for lines in traces.values()]
    return [first, *sorted(others)]


def without_free(lines):
    """A process's trace in words that are the same each time."""
    out, signals = [], []
    for text in lines:
        for pattern, word in FREE:
            text = re.sub(pattern, word, text)
        if text.startswith('munmap('):
            # The loader gives back what its alignment to 64 KiB leaves over: the address decides.
            continue
        if text.startswith(('--- SIGCHLD', 'rt_sigreturn(')):
            # Two children that end together are one signal, and it comes when it comes.
            signals += [text] if text not in signals else []
        else:
            out.append(text)
    return out + signals


def strace_pipeline(console, machine):
    """What the shell, ls and wc ask of the kernel, and what they get, is what Debian's kernel shows."""
    good(console, 'mkdir -p /tmp/seen && touch /tmp/seen/{a,b,c} && cd /tmp/seen && export PATH=/usr/sbin:/usr/bin')
    good(console, "strace -f -o /tmp/trace sh -c 'ls | wc'; cd /tmp", r'\b3 +3 +6\b', limit=300)
    text = good(console, 'cat /tmp/trace', limit=300)
    traces = '\n\n'.join('\n'.join(lines) for lines in processes(text)) + '\n'
    if machine.linux and os.environ.get('ACCEPT'):
        with open(TRACE, 'w') as file:
            file.write(traces)
    with open(TRACE) as file:
        stored = file.read()
    for ours, theirs in zip(traces.split('\n'), stored.split('\n')):
        want(ours == theirs, f'strace shows {ours!r}, on Linux {theirs!r}')
    want(traces == stored, 'one trace goes on where the other ends')


CHECKS = [gcc_threads, gdb_thread, gdb_signal, gdb_step, gdb_attach, gdb_core, strace_pipeline, gcc_big]
