"""The whole test run: host tests and lints, both builds, then boots. Called by scripts/test."""
import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import boot
import boots
import debian
import matrix
from machine import OUT, ROOT, Machine
from report import Group, Report

STATE = os.path.join(OUT, 'matrix.json')
RESULTS = os.path.join(ROOT, 'tests', 'results.tsv')
AT_ONCE = 2


def step(report, name, command, limit=1800, shell_text=None):
    """Runs a command on this machine as one check; a failure shows the end of its output."""
    words = ['bash', '-c', f'. scripts/lib.sh && linnet_rust_env && {shell_text}'] if shell_text else command
    try:
        done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit)
        text, good = done.stdout.decode('utf-8', 'replace'), done.returncode == 0
    except subprocess.TimeoutExpired as late:
        text, good = (late.stdout or b'').decode('utf-8', 'replace'), False
    tail = '' if good else '\n' + '\n'.join('    | ' + line for line in text.splitlines()[-40:])
    report.line(good, name, tail)
    return good, text


def host_checks(report):
    _, text = step(report, 'host: cargo test', None, shell_text='cargo test')
    record_host_tests(report, text)
    # Not the tests: they may use std and unwrap, which the workspace's table denies to the kernel.
    step(report, 'host: clippy', None, shell_text='cargo clippy -q -- -D warnings')
    _, text = step(report, 'host: lint tables and unsafe', ['scripts/check-lints'])
    for line in text.splitlines():
        if line.startswith('unsafe'):
            report.note(line)
    step(report, 'host: allocation is fallible', ['scripts/check-fallible'])
    step(report, 'host: coverage page', ['scripts/coverage', '--check'])
    step(report, 'host: system call page', ['scripts/syscalls-doc', '--check'])


def loom_models(report):
    """A model's objects belong to the one model that runs: one at a time."""
    _, text = step(report, 'host: loom models', None, shell_text='RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=$linnet_target/loom '
                   'CARGO_PROFILE_RELEASE_LTO=off cargo test -p sync -p klog --release --test loom -- --test-threads=1')
    record_host_tests(report, text)
    _, text = step(report, 'host: models of sleeping', None, shell_text='CARGO_PROFILE_RELEASE_LTO=off CARGO_TARGET_DIR=$linnet_target/loom '
                   'cargo test -p sched-switch --features model --release --test model -- --test-threads=1')
    record_host_tests(report, text)


def record_host_tests(report, text):
    """Outcomes of the unit tests: cargo names the binary of a crate, then its tests."""
    crate = ''
    for line in text.splitlines():
        if match := re.search(r'Running .*/deps/(\w+)-[0-9a-f]+\)', line):
            crate = match.group(1)
        elif match := re.match(r'test (\S+)(?: - should panic)? \.\.\. (ok|FAILED)$', line):
            path = [part for part in match.group(1).split('::') if part != 'tests']
            name = f'loom:{path[-1]}' if crate in ('loom', 'model') else '::'.join([f'host:{crate}', *path])
            report.record(name, match.group(2) == 'ok')


def build(report, *words):
    return step(report, f'build {" ".join(words)}', ['scripts/build', *words])[0]


def static_core(report):
    """A kernel on a core that is not position-independent, as rustup's is: it must boot too."""
    target = os.path.join(OUT, 'static-core')
    environment = f'CARGO_TARGET_DIR={target} LINNET_STATIC_CORE=1'
    done, _ = step(report, 'build with a static core', ['bash', '-c', f'{environment} scripts/build --debug --kernel-only'])
    if done:
        group = Group(report, 'static core')
        boot.expect_prompt(group, Machine(image_path=os.path.join(target, 'linnet', 'debug', 'Image')))


def run_machine(report, machine, **options):
    return guarded(Group(report, machine.name()), boot.machine_checks, machine, **options)


def guarded(group, checks, machine, **options):
    """A bug of the driver fails its machine, not the whole run."""
    try:
        checks(group, machine, **options)
    except Exception as error:
        group.line(False, 'driver', repr(error))
    return group.good


def image_digest(machine):
    digest = hashlib.sha256()
    for path in (machine.image(), machine.initrd):
        with open(path, 'rb') as file:
            digest.update(file.read())
    return digest.hexdigest()[:16]


def run_matrix(report, fresh):
    """All machines of the cover, two at a time. What passed with the same kernel and initrd is
    not booted again: an interrupted run goes on where it was."""
    state = {}
    if not fresh and os.path.exists(STATE):
        with open(STATE) as file:
            state = json.load(file)

    def one(machine):
        key = f'{machine.name()} {image_digest(machine)}'
        if state.get(key):
            report.line(True, f'[{machine.name()}] passed before')
            return
        if run_machine(report, machine):
            with report.lock:
                state[key] = True
                with open(STATE + '.new', 'w') as file:
                    json.dump(state, file, indent=1)
                os.replace(STATE + '.new', STATE)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, matrix.pairwise()))


def run_quick(report, stress):
    """The longest first: two at a time end about together."""
    odd = Machine(smp=2)
    jobs = [lambda: run_machine(report, matrix.QUICK[0], with_userland=True),
            lambda: guarded(Group(report, 'rows'), boots.own_boots, odd),
            lambda: static_core(report),
            lambda: guarded(Group(report, 'boot'), boot.odd_boots, odd)]
    jobs += [lambda machine=machine: run_machine(report, machine) for machine in matrix.QUICK[1:]]
    if stress:
        jobs.append(lambda: run_machine(report, Machine(profile='debug', append='stress'), stress=stress))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda job: job(), jobs))


def run_linux(report):
    """The same checks on Debian's kernel: a check that fails here is a wrong check."""
    machine = Machine(linux=True)
    run_machine(report, machine, with_userland=True)
    boot.odd_boots(Group(report, 'boot linux'), machine.with_(smp=2))
    boots.own_boots(Group(report, 'rows linux'), machine.with_(smp=2))


def save(report, record):
    """What each test gave, into the build directory; with `record` for docs/coverage.md too."""
    commit = subprocess.run(['git', 'describe', '--always', '--dirty'], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    report.save(os.path.join(OUT, 'results.tsv'), f'of {commit or "an unknown state"}')
    if record:
        report.save(RESULTS, f'of {commit or "an unknown state"}')
        subprocess.run(['scripts/coverage'], cwd=ROOT, check=False)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--all', action='store_true')
    parser.add_argument('--fresh', action='store_true')
    parser.add_argument('--linux', action='store_true')
    parser.add_argument('--debian', action='store_true')
    parser.add_argument('--host', action='store_true')
    parser.add_argument('--boot', action='store_true')
    parser.add_argument('--loom', action='store_true')
    parser.add_argument('--stress', type=int, default=30)
    parser.add_argument('--record', action='store_true')
    options = parser.parse_args()
    report = Report()
    if options.debian:
        if options.linux or build(report, '--release'):
            debian.run_all(report, options.linux)
        return report.close()
    if options.linux:
        if build(report, '--initrd-only'):
            run_linux(report)
        return report.close()
    if not options.boot:
        host_checks(report)
    if options.loom or options.all:
        loom_models(report)
    if not options.host and all([build(report, '--release'), build(report, '--debug', '--kernel-only')]):
        if options.all:
            run_matrix(report, options.fresh)
        run_quick(report, options.stress)
    save(report, options.record)
    return report.close()


sys.exit(main())
