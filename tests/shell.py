"""What must work at the prompt of any machine: the commands, typed on its console."""
import hashlib
import re

import rows
from console import Failure, good, want


def uname(console, machine):
    good(console, 'uname -a', r'Linux \S+ 6\.\d+\.\S+ .*aarch64')


def list_root(console, machine):
    output = good(console, 'ls -la /')
    for name in ('bin', 'dev', 'etc', 'init', 'proc', 'tmp'):
        want(re.search(rf'\s{name}$', output, re.M), f'ls -la / lacks {name}')


def cpuinfo(console, machine):
    output = good(console, 'cat /proc/cpuinfo')
    count = len(re.findall(r'^processor\s*: \d+$', output, re.M))
    want(count == machine.cpus(), f'/proc/cpuinfo shows {count} processors, not {machine.cpus()}')
    output = good(console, 'nproc')
    want(output.strip() == str(machine.cpus()), f'nproc prints {output!r}')


def process_list(console, machine):
    output = good(console, 'ps')
    want(re.search(r'^\s*1 .*init', output, re.M), 'ps lacks process 1')
    want(re.search(r'\bps\b', output.split('COMMAND', 1)[-1]), 'ps lacks itself')
    want(re.search(r'^\s*2 .*\[kthreadd\]', output, re.M), 'ps lacks kthreadd')


def top(console, machine):
    good(console, 'top -n1', r'(?s)Mem: .*CPU: .*PID')


def free(console, machine):
    output = good(console, 'free', r'Mem:\s+\d+')
    total = int(re.search(r'Mem:\s+(\d+)', output).group(1))
    want(machine.megabytes() * 512 < total <= machine.megabytes() * 1024, f'free shows {total} KiB in all')
    good(console, 'uptime', r'up \d+')


def dmesg(console, machine):
    good(console, 'dmesg | tail', r'\[ *\d+\.\d+\]')


def mounts(console, machine):
    output = good(console, 'mount')
    for name in ('/proc', '/dev', '/tmp'):
        want(f' on {name} type' in output, f'mount lacks {name}')
    good(console, 'df', r'/tmp')


def three_stages(console, machine):
    good(console, "seq 1 1000 | grep 7 | wc -l", r'^271$')


def job_control(console, machine):
    good(console, 'sleep 100 &')
    good(console, 'jobs', r'Running +sleep 100')
    console.send('fg\n')
    console.expect(rb'sleep 100\r\n')
    console.send_until(b'\x1a', rb'Stopped')
    good(console, 'jobs', r'Stopped +sleep 100')
    good(console, 'bg', r'sleep 100')
    good(console, 'jobs', r'Running +sleep 100')
    good(console, 'kill %1')
    console.run('wait')
    output, _ = console.run('jobs; jobs')
    want('Running' not in output, f'a killed job still runs: {output!r}')


def interrupt(console, machine):
    console.send('cat\n')
    console.expect(rb'cat\r\n')
    # What cat gives back after the terminal's own echo shows that it reads the terminal.
    console.send_until(b'ping\n', rb'ping\r\nping\r\n')
    console.send(b'\x03')
    console.prompt()
    # The shell reads ahead while it edits a line: what is for cat is typed when cat runs.
    console.send('echo rea""dy; cat > /tmp/typed\n')
    console.expect(rb'ready\r\n')
    console.send(b'typed text\n\x04')
    console.prompt()
    good(console, 'cat /tmp/typed', r'^typed text$')


def vi(console, machine):
    console.run('rm -f /tmp/note')
    console.send('vi /tmp/note\n')
    console.expect(rb'/tmp/note.*')
    console.expect(rb'1/1')
    console.send('ifirst line\nsecond\x1b')
    # The text itself may come in pieces, with the cursor moved between them: the status line says
    # when vi is back in command mode.
    console.expect(rb'- /tmp/note \[Modified\]')
    console.send(':wq\n')
    console.prompt()
    output = good(console, 'cat /tmp/note')
    want(output == 'first line\nsecond\n', f'vi saved {output!r}')


def here_document(console, machine):
    console.send('cat > /tmp/here <<END\nsum $((40 + 2))\nEND\n')
    good(console, 'cat /tmp/here', r'^sum 42$')


def find(console, machine):
    output = good(console, 'find / 2>/dev/null | wc -l', limit=600)
    want(int(output.split()[-1]) > 300, f'find / sees {output!r}')


def archive(console, machine):
    good(console, 'rm -rf /tmp/x && mkdir /tmp/x && cd / && tar cf /tmp/a.tar bin/busybox etc && md5sum < /tmp/a.tar > /tmp/sum')
    good(console, 'gzip /tmp/a.tar && gunzip /tmp/a.tar.gz && md5sum < /tmp/a.tar | cmp - /tmp/sum', limit=600)
    good(console, 'tar xf /tmp/a.tar -C /tmp/x && cmp /bin/busybox /tmp/x/bin/busybox && cmp /etc/passwd /tmp/x/etc/passwd')
    good(console, 'rm -r /tmp/a.tar /tmp/x')


def quarter_of_memory(console, machine):
    count = machine.megabytes() // 4
    digest = hashlib.md5()
    for _ in range(count):
        digest.update(bytes(1 << 20))
    good(console, f'dd if=/dev/zero of=/tmp/big bs=1M count={count} 2>/dev/null', limit=900)
    good(console, 'md5sum /tmp/big', digest.hexdigest(), limit=900)
    good(console, 'rm /tmp/big')


def pattern_file(console, machine):
    line = b'The quick brown fox jumps over the lazy dog\n'
    data = (line * (4_000_000 // len(line) + 1))[:4_000_000]
    good(console, f'yes "{line.decode().strip()}" | head -c 4000000 > /tmp/pattern && md5sum /tmp/pattern', hashlib.md5(data).hexdigest())
    good(console, 'rm /tmp/pattern')


def thousand_processes(console, machine):
    good(console, 'for i in $(seq 1 1000); do /bin/true; done', limit=900)


def hundred_at_once(console, machine):
    good(console, 'for i in $(seq 1 100); do sleep 1 & done; wait', limit=600)
    good(console, 'ps | grep -c "[s]leep 1" | grep -x 0')


def scripted(console, machine):
    good(console, 'printf "#!/bin/sh\\necho script \\$1\\n" > /tmp/s && chmod +x /tmp/s && /tmp/s works', r'^script works$')


def memory_returns(console, machine):
    """Programs that misbehave: each alone is killed, and their memory comes back."""
    tests = f'/bin/linnet-tests{without(console)} hostile'
    good(console, tests, r'test-userland: \d+ passed, 0 failed', limit=900)
    before = free_memory(console)
    good(console, f'{tests} > /tmp/hostile.log; tail -n1 /tmp/hostile.log', r' 0 failed', limit=900)
    # Pages are freed behind a grace period: what is still on its way is given some commands' time.
    for _ in range(20):
        after = free_memory(console)
        if before - after <= 4096:
            return
    raise Failure(f'{before - after} KiB of memory did not come back')


def free_memory(console):
    output = good(console, 'sync; cat /proc/meminfo', r'MemFree:\s+\d+ kB')
    return sum(int(re.search(rf'^{name}:\s+(\d+) kB', output, re.M).group(1)) for name in ('MemFree', 'Buffers', 'Cached'))


def without(console):
    """The words for linnet-tests that leave out what is known not to pass."""
    return ''.join(f' -x{name}' for name in console.leave_out)


def userland(console, machine):
    output, _ = console.run(f'/bin/linnet-tests{without(console)}', limit=1800)
    for verdict, name in re.findall(r'^(ok|not ok) (\w+::\w+)', output, re.M):
        console.record(f'user:{name}', verdict == 'ok')
    bad = re.findall(r'^not ok .*$', output, re.M)
    want(not bad and re.search(r'test-userland: \d+ passed, 0 failed', output), '; '.join(bad)[:2000] or output[-500:])


def no_complaint(console, machine):
    """The kernel has warned of nothing on the way."""
    text = console.seen.decode('utf-8', 'replace')
    # QEMU itself warns of devices of the Pi that it does not model.
    bad = re.findall(r'(?im)^(?!qemu-system).*(?:\bBUG\b|WARNING|panicked|kernel panic|lockdep:|Oops).*$', text)
    want(not bad, f'the kernel complained: {bad[0]!r}' if bad else '')


def power_off(console, machine):
    console.send('poweroff -f\n')
    status = console.end()
    want(status == 0, f'QEMU ended with status {status}')


PROMPT_CHECKS = [uname, list_root, cpuinfo, process_list, top, free, dmesg, mounts, three_stages, scripted, job_control,
                 interrupt, vi, here_document, find, archive, pattern_file, quarter_of_memory, hundred_at_once]
RELEASE_CHECKS = [thousand_processes]
CLOSING_CHECKS = [memory_returns, no_complaint, power_off]
RASPI_CHECKS = [cpuinfo, three_stages, hundred_at_once, no_complaint]


def checks_for(machine, with_userland):
    if machine.board == 'raspi4b':
        return rows.RASPI_CHECKS + RASPI_CHECKS
    return (rows.CHECKS + PROMPT_CHECKS + (RELEASE_CHECKS if machine.profile == 'release' else [])
            + ([userland] if with_userland else []) + CLOSING_CHECKS)
