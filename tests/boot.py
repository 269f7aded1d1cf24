"""Boots: one machine to its prompt with the commands of shell.py, and the boots that must end in a
clear message."""
import gzip
import os
import subprocess
import tempfile

import shell
from console import PROMPT, Console, Failure, Hang
from machine import INITRD, OUT, ROOT

LIMIT = 300.0


def log_path(name):
    directory = os.path.join(OUT, 'logs')
    os.makedirs(directory, exist_ok=True)
    return os.path.join(directory, name.replace(' ', '-') + '.log')


def machine_checks(group, machine, with_userland=False, stress=0):
    """Boots the machine and runs its checks; after a hang or a dead QEMU the rest is failed at once."""
    with Console(machine.command(), log_path(group.name), LIMIT) as console:
        checks = shell.checks_for(machine, with_userland)
        if stress:
            checks = [lambda c, m: run_stress(c, m, stress), shell.memory_returns, shell.no_complaint, shell.power_off]
            checks[0].__name__ = 'stress'
        try:
            console.prompt()
            group.line(True, 'prompt')
        except Failure as failure:
            group.line(False, 'prompt', f'{failure}\n{console.tail()}')
            return
        gaps = {test.removeprefix('user:'): why for test, why in group.report.gaps_of(group.name) if test.startswith('user:')}
        console.leave_out = sorted(gaps)
        console.record = group.report.record
        for check in checks:
            gap = group.report.gap(f'boot:{check.__name__}', group.name)
            if gap is not None:
                # Not even tried: it may take the shell with it.
                group.report.skip(f'[{group.name}] {check.__name__}', gap)
                continue
            try:
                check(console, machine)
                group.line(True, check.__name__)
                for name in console.leave_out if check is shell.userland else ():
                    group.report.skip(f'[{group.name}] {name}', gaps[name])
            except (Failure, subprocess.TimeoutExpired) as failure:
                group.line(False, check.__name__, f'{failure}\n{console.tail()}')
                if console.qemu.poll() is not None and check is not shell.power_off:
                    group.line(False, 'rest', 'QEMU has ended')
                    return
                if isinstance(failure, Hang) and not recovers(console):
                    group.line(False, 'rest', 'the shell does not answer any more')
                    return


def expect_prompt(group, machine):
    """Boots to the prompt, and powers off."""
    with Console(machine.command(), log_path(group.name), LIMIT) as console:
        try:
            console.prompt()
            shell.uname(console, machine)
            shell.power_off(console, machine)
            group.line(True, 'boots')
        except Failure as failure:
            group.line(False, 'boots', f'{failure}\n{console.tail()}')


def recovers(console):
    """Whether the shell still answers, after keys that end whatever runs in the foreground."""
    try:
        console.send(b'\x1b:q!\n')
        console.send_until(b'\x03', PROMPT, 60)
        for limit in (20, 60):
            # The interrupt character also drops what was typed behind it: the first may be lost.
            try:
                console.run('cd /', limit)
                return True
            except Hang:
                console.send(b'\x03')
        return False
    except (Failure, OSError):
        return False


def run_stress(console, machine, seconds):
    """Forks, pipes, files and signals on all CPUs for a time of the guest's own clock."""
    script = os.path.join(ROOT, 'tests', 'stress.sh')
    with open(script) as file:
        text = file.read()
    console.send("cat > /tmp/stress.sh <<'END-OF-SCRIPT'\n" + text + 'END-OF-SCRIPT\n')
    shell.good(console, f'sh /tmp/stress.sh {seconds} {machine.cpus()}', r'stress: done', limit=seconds * 10 + 600)


def expect_message(group, what, machine, pattern):
    """Boots a machine that cannot come up, and waits for the message that says why."""
    with Console(machine.command(), log_path(f'{group.name} {what}'), LIMIT) as console:
        try:
            console.expect(pattern)
            group.line(True, what)
        except Failure as failure:
            group.line(False, what, f'{failure}\n{console.tail()}')


def expect_job(group, what, machine, pattern):
    """Boots a machine whose initrd has a /job.sh, which prints and powers off."""
    with Console(machine.command(), log_path(f'{group.name} {what}'), LIMIT) as console:
        try:
            console.expect(pattern)
            status = console.end()
            group.line(status == 0, what, '' if status == 0 else f'QEMU ended with status {status}')
        except Failure as failure:
            group.line(False, what, f'{failure}\n{console.tail()}')


def archive(directory, name, *entries):
    path = os.path.join(directory, name)
    subprocess.run([os.path.join(ROOT, 'scripts', 'mkinitrd'), path, *entries], check=True)
    return path


def write(directory, name, data):
    path = os.path.join(directory, name)
    with open(path, 'wb') as file:
        file.write(data)
    return path


def odd_boots(group, machine):
    """Initrds of every form, and the boots that must fail with a message."""
    with open(INITRD, 'rb') as file:
        packed = file.read()
    plain = gzip.decompress(packed)
    with tempfile.TemporaryDirectory(prefix='linnet-boot.') as directory:
        job = write(directory, 'job.sh', b'echo "job says $((6 * 7))"\n')
        small = archive(directory, 'job.cpio', f'file,job.sh,755,{job}')
        small_gz = archive(directory, 'job.cpio.gz', f'file,job.sh,755,{job}')
        with open(small, 'rb') as file:
            small = file.read()
        with open(small_gz, 'rb') as file:
            small_gz = file.read()
        padding = b'\0' * (-len(packed) % 4)
        says = r'job says 42'
        for what, data in [
            ('initrd plain', plain + small),
            ('initrd gzip and gzip', packed + padding + small_gz),
            ('initrd gzip and plain', packed + padding + small),
            ('initrd plain and gzip', plain + small_gz),
        ]:
            expect_job(group, what, machine.with_(initrd=write(directory, 'initrd', data)), says)

        ends = write(directory, 'ends', b'#!/bin/sh\nexit 3\n')
        with_end = plain + open_archive(directory, ends)
        dies = r'(?i)attempted to kill init|init (has )?(exited|ended|died)|no (working )?init|unable to mount root'
        for what, data, append, pattern in [
            ('initrd absent', b'', '', r'(?i)unable to mount root|no (working )?init|no initrd'),
            ('initrd truncated', packed[:len(packed) // 2], '', dies + r'|(?i:unexpected|truncated|corrupt|decompress|unpacking failed)'),
            ('initrd corrupt', packed[:2000] + b'\x55' * 5000 + packed[7000:], '', dies + r'|(?i:corrupt|decompress|invalid|unpacking failed)'),
            ('initrd nonsense', bytes(range(256)) * 400, '', dies + r'|(?i:invalid magic|junk|unknown|unpacking failed)'),
            ('init exits', with_end, 'rdinit=/ends', r'(?i)attempted to kill init|init (has )?(exited|ended|died)'),
            ('init missing', packed, 'rdinit=/missing init=/missing', r'(?i)no (working )?init|unable to mount root|/missing'),
        ]:
            initrd = write(directory, 'initrd', data) if data else ''
            expect_message(group, what, machine.with_(initrd=initrd, append=append), pattern)
        if not machine.linux:
            # Linux says nothing here.
            expect_message(group, 'console unknown', machine.with_(append='console=nosuch0'), r'(?i)nosuch0.*|prompt')


def open_archive(directory, program):
    with open(archive(directory, 'ends.cpio', f'file,ends,755,{program}'), 'rb') as file:
        return file.read()
