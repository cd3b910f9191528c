"""What all payloads of Extended Link Services have in common: a layout (construct), and a dataclass with its fields."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

from construct import (  # type: ignore[import-untyped]  # it ships no types
    BytesInteger,
    Construct,
    ConstructError,
    Container,
    Int8ub,
    Padding,
)

from tcm_fcoe.protocol.els_codes import Explanation, Reason

if TYPE_CHECKING:
    from tcm_fcoe.protocol.fcoe import Buffer


class ElsError(ValueError):
    """A payload that is answered with LS_RJT."""

    def __init__(self, reason: Reason, explanation: Explanation, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.explanation = explanation


class Block:
    """What has a layout, and the same names as fields."""

    __slots__ = ()
    layout: ClassVar[Construct]

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """:raises ElsError: shorter than the table has it, or values that it has not."""
        try:
            found: Container[Any] = cls.layout.parse(bytes(data))
        except ConstructError:
            raise ElsError(
                Reason.PROTOCOL_ERROR, Explanation.INVALID_PAYLOAD_LENGTH, f"{cls.__name__} in {len(data)} bytes"
            ) from None
        return cls(**{each.name: found[each.name] for each in fields(cls)})  # type: ignore[arg-type]  # all are dataclasses

    def pack(self) -> bytes:
        """The bytes, reserved ones zero."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}  # type: ignore[arg-type]  # always a dataclass
        built: bytes = self.layout.build(values)
        return built


class Payload(Block):
    """A whole payload."""

    __slots__ = ()
    code: ClassVar[int]
    """LS_Command code of the request, if it is that of one only."""
    command: int
    """The first byte."""


COMMAND = "command" / Int8ub
HEAD = (COMMAND, Padding(3))
ADDRESS = BytesInteger(3)


def address(name: str) -> tuple[Construct, Construct]:
    return Padding(1), name / ADDRESS
