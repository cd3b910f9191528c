"""Tables of many rows: they are read in pieces, between which initiators are served, and not all the time."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tcm.statistics import agentx
from tcm.statistics.agentx import PduType
from tcm.statistics.mib import PIECE, ROWS_A_SECOND, Module, Oid, Syntax, Table, TableView, View, columns
from tcm.statistics.subagent import State, SubAgent

BASE: Oid = (1, 3, 6, 1, 2, 1, 4711)
NUMBER = columns((1, "number", Syntax.INTEGER, lambda row: row))
LAST = 10 * PIECE


def name(row: int) -> Oid:
    return (*BASE, 1, 1, 1, row)


def running(table: Table) -> SubAgent:
    """As after Open and Register."""
    agent = SubAgent(View([Module("LARGE-MIB", BASE, (table,))]), 100.0)
    for _ in range(2):
        (asked,) = agent.data_to_send()
        packet = agentx.head_of(asked).packet
        agent.receive_data(agentx.pack(PduType.RESPONSE, struct.pack(">IHH", 0, 0, 0), packet=packet, session=7), 100.0)
    assert agent.state is State.RUNNING
    return agent


def test_a_large_table_is_read_in_pieces() -> None:
    """And what changes meanwhile does no harm."""
    rows = {(number,): number for number in range(LAST)}
    seen: list[Oid] = []

    def read() -> Iterator[tuple[Oid, int]]:
        for index, row in rows.items():
            seen.append(index)
            yield index, row

    agent = running(Table("large", (*BASE, 1), read, NUMBER))
    wanted = b"".join(agentx.pack_oid(oid) for oid in (name(7), (), name(LAST), ()))
    request = agentx.pack(PduType.GET, wanted, session=7)
    steps, before = 0, 0
    for _ in agent.receive_in_pieces(request, 100.0):
        assert len(seen) - before <= PIECE
        before, steps = len(seen), steps + 1
    assert steps >= LAST // PIECE
    seven = agentx.varbind(name(7), Syntax.INTEGER, 7)
    asked = agentx.unpack(request)
    nothing = agentx.VarBind(name(LAST), agentx.NO_SUCH_INSTANCE)
    assert agent.data_to_send() == [agentx.response(asked, [seven, nothing])]
    # once more, and the table grows in between
    for _ in agent.receive_in_pieces(request, 200.0):
        rows.setdefault((LAST,), 4711)
    assert agent.data_to_send() == [agentx.response(asked, [seven, agentx.varbind(name(LAST), Syntax.INTEGER, 4711)])]


def test_a_bulk_is_answered_in_pieces() -> None:
    """After each value somebody else may have a turn."""
    agent = running(Table("large", (*BASE, 1), lambda: (((number,), number) for number in range(LAST)), NUMBER))
    wanted = struct.pack(">HH", 0, 100) + agentx.pack_oid(BASE) + agentx.pack_oid(())
    request = agentx.pack(PduType.GET_BULK, wanted, session=7)
    assert sum(1 for _ in agent.receive_in_pieces(request, 100.0)) >= 100
    binds = [agentx.varbind(name(number), Syntax.INTEGER, number) for number in range(100)]
    assert agent.data_to_send() == [agentx.response(agentx.unpack(request), binds)]


def test_a_table_without_measure_is_not_read_all_the_time() -> None:
    reads: list[int] = []

    def read() -> list[tuple[Oid, int]]:
        reads.append(1)
        return [((number,), number) for number in range(3 * ROWS_A_SECOND)]

    table = TableView(Table("large", BASE, read, NUMBER))
    for now, times in ((0.0, 1), (1.5, 1), (2.9, 1), (3.1, 2)):
        assert table.row((5,), now) == 5
        assert len(reads) == times
    table.forget()
    table.row((5,), 3.2)
    assert len(reads) == 3
