"""Runs regrtest inside the Python under test, and writes down each test: `inside.py EVENTS COUNTERS regrtest's arguments…`.

One line of JSON for a test's begin, one for its end with the outcome and, before and after, what was sent by ring (from the stack's
segment, whose offsets are COUNTERS, "-" without a stack) and what the kernel of this namespace sent. No descriptor stays open and
nothing is in the environment, so that tests which count those see nothing of it. What happened is on disk when a test kills the process.
"""

import json
import os
import struct
import sys
import time
from pathlib import Path


def table(path: str, wanted: dict[str, tuple[str, ...]]) -> dict[str, int]:
    """Of a file like /proc/net/snmp: `{"Tcp:": ("OutSegs",)}` gives {"Tcp:OutSegs": …}."""
    lines = [line.split() for line in Path(path).read_text().splitlines()]
    found = {}
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        for name in wanted.get(names[0], ()):
            found[names[0] + name] = int(values[names.index(name)])
    return found


def kernel_payload(net: str = "/proc/net") -> list[int]:
    """Bytes of TCP and UDP that this network namespace has sent, without headers; and TCP segments, as counted.

    IP counts a segment that is cut later (GSO) as one packet with one header; a TCP header is 32 bytes, with time stamps.
    """
    four = table(f"{net}/snmp", {"Ip:": ("OutRequests",), "Tcp:": ("OutSegs",), "Udp:": ("OutDatagrams",), "Icmp:": ("OutMsgs",)})
    octets = table(f"{net}/netstat", {"IpExt:": ("OutOctets",)})["IpExt:OutOctets"]
    file6 = Path(f"{net}/snmp6")
    lines6 = file6.read_text().splitlines() if file6.exists() else []
    six = {name: int(value) for name, value in (line.split() for line in lines6)}
    packets, packets6 = four["Ip:OutRequests"], six.get("Ip6OutRequests", 0)
    udp = four["Udp:OutDatagrams"] + six.get("Udp6OutDatagrams", 0)
    tcp = packets + packets6 - udp - four["Icmp:OutMsgs"] - six.get("Icmp6OutMsgs", 0)
    return [octets + six.get("Ip6OutOctets", 0) - 20 * packets - 40 * packets6 - 32 * tcp - 8 * udp, four["Tcp:OutSegs"]]


class Counters:
    """Reads sums of counters: `places` are offsets in the header, then from each slot's begin, of `count` slots of `stride` bytes.

    A slot whose word at `state` is 0 is free: what its last participant counted is in the header already.
    """

    def __init__(self, text: str) -> None:
        self.spec = None if text == "-" else json.loads(text)

    def __call__(self) -> list[int]:
        if not self.spec:
            return []
        count, first, stride = self.spec["count"], self.spec["first"], self.spec["stride"]
        with open(self.spec["path"], "rb") as file:
            data = file.read(first + count * stride)
        slots = range(first, first + count * stride, stride)
        used = [at for at in slots if struct.unpack_from("<I", data, at + self.spec.get("state", 0))[0]]
        return [
            sum(struct.unpack_from("<Q", data, at)[0] for at in (total, *(slot + place for slot in used)))
            for total, place in self.spec["places"]
        ]


def install(events: str, counters: Counters) -> None:
    """Put our result class in the place of regrtest's."""
    from test.support import testresult

    owner = os.getpid()

    def write(**what: object) -> None:
        if os.getpid() == owner:
            fd = os.open(events, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.write(fd, json.dumps(what).encode() + b"\n")
            os.close(fd)

    class Result(testresult.RegressionTestResult):  # type: ignore[misc]
        """Writes each outcome down; what regrtest makes of it stays its own."""

        def startTest(self, test):
            self.found, self.began = [], time.monotonic()
            self.before = [counters(), kernel_payload()]
            write(begin=test.id())
            super().startTest(test)

        def stopTest(self, test):
            super().stopTest(test)
            write(
                end=test.id(),
                found=self.found,
                seconds=round(time.monotonic() - self.began, 3),
                before=self.before,
                after=[counters(), kernel_payload()],
            )

        def note(self, test, outcome, detail=""):
            # classes and modules have results of their own, outside of any test
            known = hasattr(test, "countTestCases") and hasattr(self, "found") and hasattr(test, "_testMethodName")
            if known and "setUp" not in str(test.id()):
                self.found.append([outcome, detail])
            else:
                write(end=str(test.id()), found=[[outcome, detail]], seconds=0, before=[], after=[])

        def addSuccess(self, test):
            self.note(test, "ok")
            super().addSuccess(test)

        def addFailure(self, test, err):
            self.note(test, "fail", repr(err[1])[:500])
            super().addFailure(test, err)

        def addError(self, test, err):
            self.note(test, "error", repr(err[1])[:500])
            super().addError(test, err)

        def addSkip(self, test, reason):
            self.note(test, "skip", reason)
            super().addSkip(test, reason)

        def addExpectedFailure(self, test, err):
            self.note(test, "xfail")
            super().addExpectedFailure(test, err)

        def addUnexpectedSuccess(self, test):
            self.note(test, "xpass")
            super().addUnexpectedSuccess(test)

        def addSubTest(self, test, subtest, err):
            if err is not None:
                self.note(
                    test, "fail" if issubclass(err[0], test.failureException) else "error", f"{subtest._subDescription()}: {err[1]!r}"[:500]
                )
            super().addSubTest(test, subtest, err)

    testresult.RegressionTestResult = Result


if __name__ == "__main__":
    install(sys.argv[1], Counters(sys.argv[2]))
    sys.argv[1:] = sys.argv[3:]
    from test.libregrtest import main

    main()
