"""``python -m tcm_fcoe.decode FILE.pcap``: a capture of FCoE as a readable ladder."""

from __future__ import annotations

import contextlib
import json
import logging
import struct
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from tcm.command_line.running import CONTEXT
from tcm.command_line.running import run_command as run
from tcm.failure import RuntimeFailure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tcm_fcoe.protocol.ladder import Row

PROGRAM = "python -m tcm_fcoe.decode"
NAME_WIDTH, ID_WIDTH = 23, 17
BLOCK_HEADER = 12
"""Bytes of the shortest block of a pcapng file: type, length, and the length again."""
LINES_AT_ONCE = 256
FRAMES_A_LOOK = 1024
"""Frames after which the clock is looked at."""
ARROWS = {True: "-->", False: "<--"}
COLORS = {"FIP": "blue", "FCP_CMND": "green", "FCP_RSP": "green", "FCP_XFER_RDY": "yellow", "FCP_DATA": None}

_EPILOG = f"""\b
Examples:
  {PROGRAM} fcoe.pcap
  {PROGRAM} --fold fcoe.pcap | less -S
  {PROGRAM} --json fcoe.pcap | jq 'select(.failed)'

\b
Exit codes: 0 done, 1 the file cannot be read or is broken, 2 bad usage.
"""


class CaptureError(RuntimeFailure):
    """The file cannot be read: one line."""


@click.command(PROGRAM, epilog=_EPILOG, context_settings=CONTEXT)
@click.argument("file", metavar="FILE.pcap")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--fold", is_flag=True, help="FCP_DATA frames of one sequence as one row.")
@click.option("--ids", is_flag=True, help="FC_IDs and MAC addresses, even of ports whose names are known.")
def command(file: str, as_json: bool, fold: bool, ids: bool) -> None:
    """Print a capture of FCoE and FIP (pcap or pcapng) as a ladder: time, who and whom, exchange, what.

    The left of each row is who began the exchange. Ports are called by their names as soon as a login or FIP has told them.
    """
    from tcm_fcoe.protocol.ladder import Ladder, folded

    ladder = Ladder()
    frames = told(packets(file)) if sys.stderr.isatty() and not sys.stdout.isatty() else packets(file)
    found = (row for data, when in frames if (row := ladder.take(data, when)) is not None)
    rows = folded(found) if fold else found
    echo(json.dumps(row.as_dict()) if as_json else line(row, ids=ids) for row in rows)
    if ladder.skipped:
        click.echo(f"{ladder.skipped} frames of other protocols are left out.", err=True)


def echo(lines: Iterable[str]) -> None:
    """Print lines, many at once: what is there is printed too when an exception ends them."""
    held: list[str] = []

    def flush() -> None:
        text = "\n".join(held)
        held.clear()
        click.echo(text)

    try:
        for each in lines:
            held.append(each)
            if len(held) == LINES_AT_ONCE:
                flush()
    finally:
        if held:
            flush()


def told(frames: Iterable[tuple[bytes, float]]) -> Iterator[tuple[bytes, float]]:
    """The same, with a line on standard error that says how far it is, once it takes longer than a second."""
    begun = shown = time.monotonic()
    count = 0
    try:
        for count, each in enumerate(frames, 1):
            yield each
            if not count % FRAMES_A_LOOK and (now := time.monotonic()) - shown >= 1:
                shown = now
                click.echo(f"\r{count:,} frames, {count / (now - begun):,.0f} a second", nl=False, err=True)
    finally:
        if shown != begun:
            click.echo(f"\r{count:,} frames in {time.monotonic() - begun:.1f} s{' ' * 20}", err=True)


def line(row: Row, *, ids: bool = False) -> str:
    """A row as text, coloured; ``click.echo`` takes the colours off where there is no terminal."""
    width = ID_WIDTH if ids else NAME_WIDTH
    left, right = (row.left, row.right) if ids else (row.left_name or row.left, row.right_name or row.right)
    exchange = f"{row.ox_id:04x}/{row.rx_id:04x}" if row.ox_id is not None else ""
    vlan = f"VLAN {row.vlan} " if row.vlan is not None else ""
    text = f"{row.what}{f' {row.detail}' if row.detail else ''}"
    if row.elapsed is not None:
        text += f" after {row.elapsed * 1e3:.3f} ms"
    problem = f" BROKEN: {row.problem}" if row.problem else ""
    color = "red" if row.failed else COLORS.get(row.what.partition(" ")[0], "magenta")
    return (
        f"{row.number:6} {row.time:11.6f}  {vlan}{left:{width}} {ARROWS[row.to_right]} {right:{width}} {exchange:9}  "
        f"{click.style(text, fg=color) if color else text}{click.style(problem, fg='red', bold=True) if problem else ''}"
    )


def packets(path: str) -> Iterator[tuple[bytes, float]]:
    """The frames of a capture file, and when each was seen (seconds). Raises CaptureError."""
    from scapy.data import DLT_EN10MB
    from scapy.error import Scapy_Exception
    from scapy.utils import RawPcapNgReader, RawPcapReader

    logging.getLogger("scapy").setLevel(logging.ERROR)  # what it warns of is said below

    try:
        reader = RawPcapReader(path)
    except OSError as e:
        raise CaptureError(f"{path}: {e.strerror or e}") from None
    except (Scapy_Exception, EOFError, ValueError):
        raise CaptureError(f"{path} is no capture: give a pcap or pcapng file") from None
    with contextlib.closing(reader):
        count = 0
        plain = not isinstance(reader, RawPcapNgReader)
        while True:
            before = reader.f.tell()
            try:
                data, found = reader._read_packet()
            except EOFError:
                break
            except Exception as e:  # noqa: BLE001  # whatever scapy meets in a file that is none
                raise CaptureError(f"{path}: frame {count + 1} is broken at byte {before}: {e}") from None
            count += 1
            about: Any = found  # the two kinds of file tell different things
            link_type = reader.linktype if plain else about.linktype
            if link_type not in (None, DLT_EN10MB):
                raise CaptureError(f"{path} is no capture of an Ethernet interface, but of link type {link_type}")
            if plain and len(data) < about.caplen:
                raise CaptureError(f"{path} ends inside frame {count}: {len(data)} of {about.caplen} bytes are there")
            if plain:
                when = about.sec + about.usec / (1e9 if reader.nano else 1e6)
            else:
                when = ((about.tshigh or 0) << 32 | (about.tslow or 0)) / (about.tsresol or 1e6)
            yield data, when
        try:
            reader.f.seek(before)
            rest = reader.f.read()
        except EOFError:
            raise CaptureError(f"{path} is cut short: it ends inside its compressed data, after frame {count}") from None
        if not plain:
            rest = _behind_blocks(rest, reader.endian)
        if rest:
            raise CaptureError(f"{path} ends inside the {'header' if plain else 'block'} of frame {count + 1}")


def _behind_blocks(data: bytes, endian: str) -> bytes:
    """What is left of pcapng data behind whole blocks, which may be others than of frames."""
    while len(data) >= BLOCK_HEADER:
        (length,) = struct.unpack_from(f"{endian}I", data, 4)
        if not BLOCK_HEADER <= length <= len(data):
            break
        data = data[length:]
    return data


def main() -> None:
    """Run the command and end the process with its exit code."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """The exit code of these arguments. Errors are one line on standard error."""
    return run(command, PROGRAM, arguments)


if __name__ == "__main__":
    main()
