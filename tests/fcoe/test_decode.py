"""``python -m tcm_fcoe.decode``: the golden trace as a ladder; broken files and frames are a line each."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import pty
import random
import struct
import subprocess
import sys
import zlib

import pytest
import tcm_fcoe.decode
import tcm_fcoe.protocol.ladder
from click.testing import CliRunner
from scapy.layers.l2 import Ether
from scapy.utils import PcapNgWriter
from support.fcoe_capture import CAPTURE, captured
from tcm_fcoe.capture import CaptureFile
from tcm_fcoe.decode import command, run_command
from tcm_fcoe.protocol.ethernet import insert_tag, vlan_tag
from tcm_fcoe.protocol.ladder import Ladder, folded
from tcm_fcoe.protocol.ladder_frames import information_unit
from tcm_fcoe.protocol.layers import FCoE

PLAIN = gzip.decompress(CAPTURE.read_bytes())
TARGET, INITIATOR = "20:00:52:54:00:2f:fc:00", "20:00:52:54:00:f5:97:00"


def ladder():
    made = Ladder()
    return [made.take(each.ethernet, each.time) for each in captured()]


@pytest.fixture(scope="module")
def rows():
    return ladder()


@pytest.fixture
def golden(tmp_path):
    path = tmp_path / "golden.pcap"
    path.write_bytes(PLAIN)
    return path


def decode(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tcm_fcoe.decode", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )


def test_every_frame_is_a_row_without_complaint(rows):
    assert len(rows) == 839
    assert [row.problem for row in rows if row.problem] == []
    assert [row.number for row in rows if row.failed] == [104]


@pytest.mark.parametrize(
    "number, what, detail",
    [
        (1, "FIP VN2VN", "Probe Request, MAC 52:54:00:2f:fc:00"),
        (9, "FIP VN2VN", "frames of up to 2158 bytes"),
        (11, "FIP FLOGI", f"port {TARGET}, node 10:00:52:54:00:2f:fc:00, 2112 bytes a frame, MAC 0e:fd:00:00:fc:00"),
        (12, "FIP LS_ACC (FLOGI)", f"port {INITIATOR}"),
        (13, "PLOGI", f"port {INITIATOR}"),
        (14, "LS_ACC (PLOGI)", f"port {TARGET}"),
        (16, "PRLI", "rd_xfer_rdy_disabled initiator conf retry"),
        (17, "LS_ACC (PRLI)", "rd_xfer_rdy_disabled target initiator conf"),
        (21, "LS_ACC (RTV)", "R_A_TOV 4000 ms, E_D_TOV 2000 ms"),
        (23, "FCP_CMND", "LUN 0 INQUIRY, 36 bytes in"),
        (24, "FCP_DATA", "offset 0, 36 bytes"),
        (25, "FCP_RSP", "INQUIRY, GOOD"),
        (104, "FCP_RSP", "CHECK CONDITION, ILLEGAL REQUEST 20h/00h"),
        (122, "FCP_CMND", "READ (10), LBA 0, 8 blocks, 4096 bytes in"),
        (748, "FCP_CMND", "WRITE (10), LBA"),
        (749, "FCP_XFER_RDY", "offset 0, 16384 bytes"),
        (751, "FCP_DATA", "offset 2048, 2048 bytes"),
        (834, "FCP_CMND", "LUN 0 LOGICAL UNIT RESET"),
        (835, "FCP_RSP", "LOGICAL UNIT RESET, TASK MANAGEMENT FUNCTION COMPLETE"),
        (836, "FIP LOGO", f"00.97.00, port {INITIATOR}"),
        (837, "FIP LS_ACC (LOGO)", "MAC 0e:fd:00:00:fc:00"),
    ],
)
def test_rows_say_what_frames_are(rows, number, what, detail):
    """The frames that the trace's own table has."""
    row = rows[number - 1]
    assert (row.number, row.what) == (number, what)
    assert detail in row.detail


def test_requests_point_right_and_answers_left(rows):
    request, data, response = rows[22:25]
    for row, to_right in ((request, True), (data, False), (response, False)):
        assert (row.left, row.right, row.to_right) == ("00.97.00", "00.fc.00", to_right)
        assert (row.left_name, row.right_name) == (INITIATOR, TARGET)
    assert (request.rx_id, response.rx_id) == (0xFFFF, 0)
    assert response.elapsed == pytest.approx(response.time - request.time)
    assert data.elapsed is None


def test_names_of_a_fabric_are_learnt_from_its_logins():
    """FLOGI has no FC_ID yet; its accept gives one, and carries the fabric's names."""
    from support.fcoe_fabric import login_frames

    made = Ladder()
    rows = [made.take(frame, at) for at, frame in enumerate(login_frames())]
    assert [row.what for row in rows] == ["FLOGI", "LS_ACC (FLOGI)", "GID_FT", "CT accept (GID_FT)"]
    assert rows[2].left_name == "20:00:00:00:00:00:00:01"
    assert rows[2].right == "directory"
    assert rows[2].right_name == ""


def test_every_kind_of_frame_has_a_name():
    from support.fcoe_examples import examples

    made = Ladder()
    rows = [made.take(bytes(frame), at) for at, frame in enumerate(examples())]
    assert [row.problem for row in rows if row.problem] == []
    assert [row.what for row in rows] == [
        "PLOGI", "LS_ACC (PLOGI)", "PRLI", "LS_ACC (PRLI)", "RTV", "LS_ACC (RTV)", "ADISC", "LS_RJT (ADISC)", "FCP_CMND",
        "FCP_DATA", "FCP_DATA", "REC", "LS_ACC (REC)", "FCP_RSP", "FCP_CONF", "FCP_CMND", "FCP_XFER_RDY", "ABTS", "BA_ACC",
        "LOGO", "FIP Discovery", "FIP VLAN",
    ]  # fmt: skip


def test_data_of_a_sequence_is_folded(rows):
    short = list(folded(rows))
    assert len(short) < len(rows) // 2
    assert sum(row.frames for row in short) == len(rows)
    (write,) = (row for row in short if row.number == 750)
    assert write.detail == "offset 0, 16384 bytes in 8 frames"


@pytest.mark.parametrize(
    "change, problem",
    [
        (lambda frame: frame[:20], "too short for a Fibre Channel frame"),
        (lambda frame: frame[:60] + bytes((frame[60] ^ 1,)) + frame[61:], "CRC"),
        (lambda frame: frame[:27] + b"\x11" + frame[28:], "SOF 11h"),
        (lambda frame: frame[:-4] + b"\x99" + frame[-3:], "EOF 99h"),
        (lambda frame: frame[:14] + b"\x10" + frame[15:], "FCoE version 1"),
        (lambda frame: frame[:13], "13 bytes are no Ethernet frame"),
    ],
)
def test_broken_frames_say_why(change, problem):
    row = Ladder().take(change(captured()[22].ethernet), 0.0)
    assert problem in row.problem


def test_an_information_unit_that_is_cut_short_says_so():
    frame = Ether(captured()[22].ethernet)
    del frame[FCoE].payload.payload
    frame[FCoE].crc = None
    row = Ladder().take(bytes(frame), 0.0)
    assert (row.what, row.problem) == ("FCP_CMND", "0 bytes are too few")


def test_frames_cut_at_every_byte_are_rows():
    for number in (3, 11, 13, 16, 23, 25, 104, 122, 749, 834):
        whole = captured()[number - 1].ethernet
        for length in range(len(whole)):
            row = Ladder().take(whole[:length], 0.0)
            assert row is None or row.problem, (number, length)


def test_other_protocols_are_counted():
    made = Ladder()
    assert made.take(bytes(12) + b"\x08\x00" + bytes(40), 0.0) is None
    assert made.skipped == 1


# frames by struct, and by packet classes


def both_ways(monkeypatch, frames):
    """The rows of a ladder, and those of one for which all frames are taken apart by scapy."""
    quick = Ladder()
    rows = [quick.take(each, at) for at, each in enumerate(frames)]
    with monkeypatch.context() as changed:
        changed.setattr(tcm_fcoe.protocol.ladder, "information_unit", lambda _: None)
        slow = Ladder()
        return rows, [slow.take(each, at) for at, each in enumerate(frames)]


def mended(frame):
    """With the right CRC, so that it is looked into."""
    return frame[:-8] + zlib.crc32(frame[28:-8]).to_bytes(4, "little") + frame[-4:]


def all_frames():
    from support.fcoe_examples import examples
    from support.fcoe_fabric import login_frames

    tagged = [insert_tag(each.ethernet, vlan_tag(100)) for each in captured()[:130]]
    return [each.ethernet for each in captured()] + tagged + [bytes(each) for each in examples()] + list(login_frames())


def test_most_frames_are_taken_apart_by_struct():
    taken = [each for each in captured() if information_unit(each.ethernet)]
    assert len(taken) == 811


def test_rows_are_the_same_by_struct_and_by_packet_classes(monkeypatch):
    quick, slow = both_ways(monkeypatch, all_frames())
    assert quick == slow
    assert [each.as_dict() for each in quick] == [each.as_dict() for each in slow]


@pytest.mark.parametrize("seed", range(2))
def test_rows_of_any_bytes_are_the_same_by_struct_and_by_packet_classes(monkeypatch, seed):
    """Changed, cut and lengthened at any place; mostly with the right CRC, as only such frames go by struct."""
    source = random.Random(seed)
    frames = []
    for whole in all_frames():
        if len(whole) > 600 and source.random() < 0.8:
            continue
        frame = bytearray(whole)
        for _ in range(source.choice((0, 1, 1, 2, 8))):
            frame[source.randrange(12, min(len(frame), 110))] = source.choice((0, 1, 2, 8, 0x7F, 0xFF, source.randrange(256)))
        if source.random() < 0.2:
            at = source.randrange(28, len(frame) - 7)
            frame[at:at] = source.randbytes(source.randrange(9))
        if source.random() < 0.2:
            at = source.randrange(28, len(frame) - 7)
            del frame[at : at + source.randrange(9)]
        frames.append(mended(bytes(frame)) if source.random() < 0.9 else bytes(frame))
    quick, slow = both_ways(monkeypatch, frames)
    assert sum(information_unit(each) is not None for each in frames) > 100
    for frame, one, other in zip(frames, quick, slow, strict=True):
        assert one == other, frame.hex()


# the command line


def test_the_command_prints_a_line_a_frame(golden):
    done = decode(golden)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 839
    assert "\x1b" not in done.stdout
    what = "0004/ffff  FCP_CMND LUN 0 WRITE (10), LBA 512, 32 blocks, 16384 bytes out"
    assert lines[747].strip() == f"748    8.052085  {INITIATOR} --> {TARGET} {what}"


def test_a_terminal_gets_colours(golden):
    shown = CliRunner().invoke(command, [str(golden)], color=True)
    assert "\x1b[32mFCP_CMND" in shown.output


def test_json_is_an_object_a_line(golden):
    objects = [json.loads(line) for line in decode("--json", golden).stdout.splitlines()]
    assert len(objects) == 839
    assert objects[748] | {"time": 0} == {
        "number": 749, "time": 0, "left": "00.97.00", "right": "00.fc.00", "left_name": INITIATOR, "right_name": TARGET,
        "to_right": False, "ox_id": 4, "rx_id": objects[748]["rx_id"], "seq_id": objects[748]["seq_id"],
        "what": "FCP_XFER_RDY", "detail": "offset 0, 16384 bytes", "frames": 1,
    }  # fmt: skip
    assert objects[103]["failed"] is True


def test_ids_and_fold(golden):
    done = decode("--ids", "--fold", golden)
    assert INITIATOR not in done.stdout.splitlines()[30].split("  ")[1]
    assert "offset 0, 16384 bytes in 8 frames" in done.stdout


def test_pcapng_and_gzip_are_captures_too(tmp_path):
    assert len(decode(CAPTURE).stdout.splitlines()) == 839
    from scapy.utils import PcapNgWriter

    path = tmp_path / "golden.pcapng"
    with PcapNgWriter(str(path)) as writer:
        for each in captured()[:30]:
            packet = Ether(each.ethernet)
            packet.time = 1e9 + each.time
            writer.write(packet)
    lines = decode(path).stdout.splitlines()
    assert len(lines) == 30
    assert "6.736104" in lines[24]


def error_of(done):
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("python -m tcm_fcoe.decode: error: ")
    return lines[0]


@pytest.mark.parametrize(
    "content, code, text",
    [
        (b"", 1, "is no capture"),
        (b"not a capture at all, but quite some text", 1, "is no capture"),
        (PLAIN[:24] + PLAIN[24:34], 1, "ends inside the header of frame 1"),
        (PLAIN[: 24 + 16 + 30], 1, "ends inside frame 1: 30 of 64 bytes are there"),
        (PLAIN[:20] + (101).to_bytes(4, "little") + PLAIN[24:], 1, "link type 101"),
    ],
)
def test_broken_files_are_one_line(tmp_path, content, code, text):
    path = tmp_path / "broken.pcap"
    path.write_bytes(content)
    done = decode(path)
    assert done.returncode == code
    assert text in error_of(done)


@pytest.mark.parametrize("suffix, left", [("pcapng", 30), ("pcapng", 5), ("gz", 9), ("gz", 200)])
def test_files_cut_short_are_not_taken_for_whole(tmp_path, suffix, left):
    """Of every kind: frames that are there are printed, and that some are missing is said."""
    whole = tmp_path / f"whole.{suffix}"
    if suffix == "gz":
        whole.write_bytes(CAPTURE.read_bytes())
    else:
        with PcapNgWriter(str(whole)) as writer:
            for each in captured()[:20]:
                writer.write(Ether(each.ethernet))
    content = whole.read_bytes()
    if suffix == "pcapng":
        statistics = struct.pack("<IIIIII", 5, 24, 0, 0, 0, 24)
        whole.write_bytes(content + statistics)
        assert decode(whole).returncode == 0, "a block that is no frame may be the last"
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(content[:-left])
    done = decode(cut)
    assert done.returncode == 1
    assert "ends inside" in error_of(done)
    assert len(done.stdout.splitlines()) >= 19


def test_what_was_there_before_the_break_is_printed(tmp_path):
    path = tmp_path / "cut.pcap"
    path.write_bytes(PLAIN[:2000])
    done = decode(path)
    assert done.returncode == 1
    assert "ends inside" in error_of(done)
    assert len(done.stdout.splitlines()) == 8


def test_a_file_that_is_not_there(tmp_path):
    done = decode(tmp_path / "none.pcap")
    assert done.returncode == 1
    assert "No such file" in error_of(done)


@pytest.mark.parametrize("arguments", [[], ["--colour", "x.pcap"], ["a", "b"]])
def test_bad_usage_is_one_line(arguments):
    done = decode(*arguments)
    assert done.returncode == 2
    error_of(done)


def test_help_has_examples():
    done = decode("--help")
    assert done.returncode == 0
    assert "--fold fcoe.pcap" in done.stdout


def test_nobody_reads_on(golden):
    done = subprocess.run(
        f"{sys.executable} -m tcm_fcoe.decode {golden} | head -n 1", shell=True, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


@pytest.fixture
def long_file(tmp_path):
    """More than a pipe takes."""
    path = tmp_path / "long.pcap"
    path.write_bytes(PLAIN[:24] + 6 * PLAIN[24:])
    return path


def test_the_output_of_a_long_file_comes_as_it_is_made(long_file):
    """A pipe that is closed in the middle ends it, without a word."""
    with subprocess.Popen(
        [sys.executable, "-m", "tcm_fcoe.decode", str(long_file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        first = [process.stdout.readline() for _ in range(3)]
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 1
    assert [line.split()[0] for line in first] == ["1", "2", "3"]


def test_a_terminal_is_told_how_far_it_is(monkeypatch, capsys):
    """By a clock that goes on a second with every look."""
    seconds = itertools.count()
    monkeypatch.setattr(tcm_fcoe.decode.time, "monotonic", lambda: float(next(seconds)))
    frames = [(b"", 0.0)] * 2500
    assert list(tcm_fcoe.decode.told(frames)) == frames
    assert [each.strip() for each in capsys.readouterr().err.split("\r")] == [
        "", "1,024 frames, 1,024 a second", "2,048 frames, 1,024 a second", "2,500 frames in 3.0 s",
    ]  # fmt: skip
    short = [(b"", 0.0)] * 3
    assert list(tcm_fcoe.decode.told(short)) == short
    assert capsys.readouterr().err == ""


def test_progress_is_for_terminals_only(long_file):
    """A pseudo-terminal as standard error; the rows go elsewhere, and are the same."""
    ours, its = pty.openpty()
    try:
        command_line = [sys.executable, "-m", "tcm_fcoe.decode", str(long_file)]
        done = subprocess.run(command_line, stdout=subprocess.PIPE, stderr=its, text=True, check=True, timeout=300)
    finally:
        os.close(its)
        os.close(ours)
    assert done.stdout == decode(long_file).stdout
    assert len(done.stdout.splitlines()) == 6 * 839


def test_a_capture_file_keeps_frames_and_times(tmp_path, capsys):
    path = tmp_path / "made.pcap"
    with CaptureFile(str(path)) as capture:
        for each in captured()[:25]:
            capture.write(each.ethernet, 1_700_000_000 * 10**9 + round(each.time * 1e9))
        assert capture.frames == 25
    assert run_command([str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[24].split()[1] == "6.736104"
