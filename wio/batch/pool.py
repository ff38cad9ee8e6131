"""Carries out the jobs of a batch in processes of their own: one that dies takes one file with it."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

from wio.batch.worker import Job, failed

Result = dict[str, Any]


class _Worker:
    """A process that is started when it is needed, and again after it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(self, job: Job) -> Result:
        process = self._process = self._process or subprocess.Popen(
            # -P: what lies in the current folder is no module.
            [sys.executable, "-P", "-m", "wio.batch.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        line = ""
        if process.stdin is not None and process.stdout is not None:
            with contextlib.suppress(BrokenPipeError):
                print(job.as_line(), file=process.stdin, flush=True)
                line = process.stdout.readline()
        if line.endswith("\n"):
            result: Result = json.loads(line)
            return result
        self._process = None
        return failed(f"its process ended: {_how(process.wait())}")

    def close(self) -> None:
        """Ends the process, at work or not."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.communicate()


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def run_all(jobs: Sequence[Job], processes: int, tell: Callable[[Result], None]) -> list[Result]:
    """The result of each job, in order; ``tell`` is given each as it comes.

    An interrupt (SIGINT, SIGTERM) ends every process and is raised as KeyboardInterrupt: call it in the main thread.
    """
    workers = [_Worker() for _ in range(min(processes, len(jobs)))]
    idle = list(workers)
    lock = Lock()

    def run(job: Job) -> Result:
        with lock:
            worker = idle.pop()
        try:
            result = worker.run(job)
        finally:
            with lock:
                idle.append(worker)
        with lock:
            tell(result)
        return result

    with _interruptible(), ThreadPoolExecutor(max(len(workers), 1)) as threads:
        try:
            return list(threads.map(run, jobs))
        finally:
            # Jobs that wait are not begun any more, those in work end with their process.
            threads.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.close()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Signals are raised meanwhile, whatever else is done with them: processes must not outlive who waits for them.

    One that is ignored, as nohup has it, stays so.
    """
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
