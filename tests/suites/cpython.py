"""Runs one module of CPython's test suite in the guest and writes its outcomes to /tmp/outcomes: a
line when a case starts and one when it has ended, so that a case that takes the machine with it is
known. Standard input and output are left to the cases.

usage: python3 cpython.py MODULE"""
import os
import sys
import tempfile
import unittest

from test import support

log = open('/tmp/outcomes', 'w', buffering=1)


class Result(unittest.TestResult):
    def startTest(self, test):
        super().startTest(test)
        self.bad = None
        log.write(f'start\t{test.id()}\n')

    def stopTest(self, test):
        log.write(f'{self.bad or "pass"}\t{test.id()}\n')
        super().stopTest(test)

    def note(self, test, err, kind):
        self.bad = kind
        sys.stdout.write(f'---- {kind} {test.id()}\n')
        sys.stdout.write(self._exc_info_to_string(err, test))
        sys.stdout.flush()
        if not hasattr(test, '_testMethodName'):
            log.write(f'{kind}\t{test.id()}\n')

    def addError(self, test, err):
        self.note(test, err, 'error')

    def addFailure(self, test, err):
        self.note(test, err, 'fail')

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self.note(subtest, err, 'fail')

    def addSkip(self, test, reason):
        self.bad = 'skip'
        sys.stdout.write(f'---- skip {test.id()}: {reason}\n')

    def addExpectedFailure(self, test, err):
        self.bad = 'xfail'

    def addUnexpectedSuccess(self, test):
        self.bad = 'fail'


support.use_resources = ['subprocess']
os.chdir(tempfile.mkdtemp())
suite = unittest.defaultTestLoader.loadTestsFromName('test.' + sys.argv[1])
suite.run(Result())
log.write('end\t\n')
log.close()
os._exit(0)
