"""Runs an experiment on several processes of this machine.

    objdisc launch --processes 2 -- --config configs/demo.py

What follows `--` are the arguments of `objdisc_jax.main`. With GPUs every process gets its share of
them, otherwise the processes talk through the CPU. Their lines come with the process's number in
front. When one process dies, the others are stopped; SIGTERM and Ctrl-C go to all of them, which
save and end.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from objdisc_jax import local_devices
from objdisc_jax.cli import Parser, int_in_range
from objdisc_jax.errors import UserError, exit_on_user_error

NOTICE_SECONDS = 5.0
"""How long the others have, when one process has died, to notice and to say so."""
SAVE_SECONDS = 10.0
"""How long they have after SIGTERM before they are killed."""
_POLL_SECONDS = 0.1


def launch(processes: int, arguments: Sequence[str], port: int = 0) -> int:
    """Starts processes of `objdisc_jax.main` and waits for them.

    Process 0 is their coordinator, at `port` or, if that is 0, at a free one. Returns 0 if all of
    them ended well, else the exit status of the first that did not.
    """
    coordinator = f"localhost:{port or _free_port()}"
    command = [sys.executable, "-m", "objdisc_jax.main", *arguments]
    command += ["--coordinator", coordinator, "--num_processes", str(processes)]
    environments = _shares_of_gpus(processes, os.environ)
    running: list[subprocess.Popen[str]] = []
    with _signals_passed_on(running) as received:
        for number, environment in enumerate(environments):
            process = subprocess.Popen(
                [*command, "--process_id", str(number)],
                env=os.environ | environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            running.append(process)
            for signal_number in received:
                process.send_signal(signal_number)
        printers = [
            threading.Thread(target=_print_lines, args=(number, process.stdout), daemon=True)
            for number, process in enumerate(running)
        ]
        for printer in printers:
            printer.start()
        status = _wait(running)
        for printer in printers:
            printer.join(SAVE_SECONDS)
    return status


def _wait(processes: Sequence[subprocess.Popen[str]]) -> int:
    """Waits for all processes; stops the others when one has failed."""
    codes: list[int | None] = [None]
    while None in codes and not any(codes):
        time.sleep(_POLL_SECONDS)
        codes = [process.poll() for process in processes]
    failed = [number for number, code in enumerate(codes) if code]
    if not failed:
        return 0
    # Of several that ended at once, one that a signal killed is the cause and the others follow.
    first = min(failed, key=lambda number: codes[number] or 0)
    status = processes[first].returncode
    _stop(processes)
    reason = f"status {status}" if status > 0 else signal.Signals(-status).name
    print(f"error: process {first} ended with {reason}, and so did the run.", file=sys.stderr)
    return status if status > 0 else 128 - status


def _stop(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Ends the processes that are left, gently at first."""
    for number, seconds in (
        (0, NOTICE_SECONDS),  # no signal
        (signal.SIGTERM, SAVE_SECONDS),
        (signal.SIGKILL, SAVE_SECONDS),
    ):
        deadline = time.monotonic() + seconds
        for process in processes:
            process.send_signal(number)  # of no effect on one that has ended
        while time.monotonic() < deadline and any(p.poll() is None for p in processes):
            time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def _signals_passed_on(processes: Sequence[subprocess.Popen[str]]) -> Iterator[list[int]]:
    """Passes SIGTERM and SIGINT on to processes; yields those received, for later processes."""
    received: list[int] = []

    def pass_on(number: int, _: object) -> None:
        received[:] = [number]
        for process in processes:
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_lines(number: int, lines: Iterable[str]) -> None:
    """Prints a process's lines as they come, whole, with its number in front."""
    for line in lines:
        with contextlib.suppress(OSError):  # on a full disk the log stops, the processes don't
            sys.stdout.write(f"[{number}] {line}")
            sys.stdout.flush()


def _shares_of_gpus(processes: int, environment: Mapping[str, str]) -> Sequence[Mapping[str, str]]:
    """What gives each process its share of the GPUs, if there are any, whatever a cluster says."""
    gpus = local_devices.visible_gpus(environment)
    if gpus is None:
        gpus = [str(number) for number in range(local_devices.installed_gpus())]
    if (choice := local_devices.chosen(environment)) is not None and gpus:
        gpus = [gpus[number] for number in choice if number < len(gpus)]
    if not gpus or environment.get("JAX_PLATFORMS") == "cpu":
        return [{}] * processes
    if len(gpus) < processes:
        raise UserError(
            f"--processes is {processes}, but there are only {len(gpus)} GPUs. Start at most as "
            "many, or use the CPU with JAX_PLATFORMS=cpu."
        )
    return [
        {
            "CUDA_VISIBLE_DEVICES": ",".join(share),
            local_devices.VARIABLE: ",".join(map(str, range(len(share)))),
        }
        for share in local_devices.shares(gpus, processes)
    ]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def main() -> None:
    """Does what the command line says."""
    parser = Parser("objdisc_jax.launch", __doc__)
    add = parser.add_argument
    add("--processes", type=int_in_range(1), required=True, help="how many to start")
    add("--port", type=int_in_range(0, 65535), default=0, help="of the coordinator; 0: a free one")
    add("arguments", nargs="*", help="of objdisc_jax.main, after --")
    arguments = parser.parse_args()
    with exit_on_user_error():
        sys.exit(launch(arguments.processes, arguments.arguments, arguments.port))


if __name__ == "__main__":
    main()
