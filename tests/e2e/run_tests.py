#!/usr/bin/env python3
"""Runs the tests of a folder against the binary of one build.

  tests/e2e/run_tests.py [--build DIR] [--count FILE] FOLDER [NAME]...

NAME is a file without .py, optionally with class and test: test_query, test_query.QueryTest.test_unknown_uid.
Default: all files. --count: appends a line "PASSED FAILED SKIPPED" to FILE.
"""

import argparse
import os
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))


class Result(unittest.TextTestResult):
    """One line a test, with its time; the reason of a skip on a line of its own."""

    def startTest(self, test):
        self._started = time.monotonic()
        super().startTest(test)

    def stopTest(self, test):
        super().stopTest(test)
        self.stream.write(f"        {time.monotonic() - self._started:.1f} s\n")
        self.stream.flush()

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.stream.write(f"skipped {test.id()}: {reason}\n")


def main():
    parser = argparse.ArgumentParser(add_help=True)
    parser.add_argument("--build", default=os.environ.get("DPA_BUILD", "build/release"))
    parser.add_argument("--count")
    parser.add_argument("folder")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    os.environ["DPA_BUILD"] = arguments.build
    folder = os.path.abspath(arguments.folder)
    sys.path[:0] = [folder, HERE]
    loader = unittest.TestLoader()
    suite = (
        loader.loadTestsFromNames(arguments.names) if arguments.names else loader.discover(folder, "test_*.py", folder)
    )
    result = unittest.TextTestRunner(verbosity=2, resultclass=Result).run(suite)
    # A test with several failing subtests is one failed test.
    broken = [test for test, _ in result.failures + result.errors] + list(result.unexpectedSuccesses)
    failed = len({getattr(test, "test_case", test).id() for test in broken})
    skipped = len(result.skipped)
    if arguments.count:
        with open(arguments.count, "a", encoding="ascii") as file:
            file.write(f"{max(result.testsRun - failed - skipped, 0)} {failed} {skipped}\n")
    if result.testsRun == 0:
        print("no tests found", file=sys.stderr)
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
