"""The key table: RFC 7143 clause 13, RFC 7144. Most tests iterate over the rows."""

from __future__ import annotations

from dataclasses import fields

import pytest
from tcm_iscsi.protocol.keys import BY_NAME, KEYS, STAGES, Key, Kind, Result, Scope, Sender, Stage, Use
from tcm_iscsi.protocol.negotiation import COMBINE
from tcm_iscsi.protocol.parameters import ConnectionParameters, SessionParameters
from tcm_iscsi.protocol.text import TextError

RANGES = {
    "MaxConnections": (1, 65535),
    "MaxRecvDataSegmentLength": (512, 2**24 - 1),
    "MaxBurstLength": (512, 2**24 - 1),
    "FirstBurstLength": (512, 2**24 - 1),
    "DefaultTime2Wait": (0, 3600),
    "DefaultTime2Retain": (0, 3600),
    "MaxOutstandingR2T": (1, 65535),
    "ErrorRecoveryLevel": (0, 2),
    "iSCSIProtocolLevel": (0, 31),
    "TargetPortalGroupTag": (0, 65535),
    "IFMarkInt": (1, 65535),
    "OFMarkInt": (1, 65535),
}
RESULTS = {
    "InitialR2T": Result.OR,
    "ImmediateData": Result.AND,
    "DataPDUInOrder": Result.OR,
    "DataSequenceInOrder": Result.OR,
    "MaxConnections": Result.MINIMUM,
    "MaxBurstLength": Result.MINIMUM,
    "FirstBurstLength": Result.MINIMUM,
    "DefaultTime2Wait": Result.MAXIMUM,
    "DefaultTime2Retain": Result.MINIMUM,
    "MaxOutstandingR2T": Result.MINIMUM,
    "ErrorRecoveryLevel": Result.MINIMUM,
    "iSCSIProtocolLevel": Result.MINIMUM,
    "HeaderDigest": Result.FIRST,
    "DataDigest": Result.FIRST,
    "AuthMethod": Result.FIRST,
    "TaskReporting": Result.FIRST,
    "IFMarker": Result.NO,
    "OFMarker": Result.NO,
    "IFMarkInt": Result.REJECT,
    "OFMarkInt": Result.REJECT,
}


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_key_row(key: Key) -> None:
    """Result functions and ranges are the standard's; what a row says of itself fits together."""
    assert key.result is RESULTS.get(key.name, Result.DECLARATIVE)
    if key.kind in (Kind.NUMBER, Kind.RANGE):
        assert (key.minimum, key.maximum) == RANGES[key.name]
    if key.result in COMBINE:
        assert key.ours is not None
    if key.default is not None:
        assert key.format(key.default)
    assert BY_NAME[key.name] is key
    assert STAGES[key.use] <= set(Stage)


@pytest.mark.parametrize("key", [key for key in KEYS if key.field], ids=lambda key: key.name)
def test_key_default_is_the_parameters_default(key: Key) -> None:
    """The table and the dataclasses hold the same defaults."""
    holder = SessionParameters() if key.scope is Scope.SESSION else ConnectionParameters()
    value = getattr(holder, key.field)
    assert value == ({"None": False, "CRC32C": True}[key.default] if "Digest" in key.name else key.default)


def test_every_parameter_has_its_key() -> None:
    """No field of the active values without a row, except what we declare and what is not negotiated."""
    found = {key.field for key in KEYS} - {""}
    wanted = {field.name for kind in (SessionParameters, ConnectionParameters) for field in fields(kind)}
    assert wanted - found == {"max_recv_data_segment_length", "max_xmit_data_segment_length"}
    assert found <= wanted


def legal(key: Key) -> list[str]:
    return {
        Kind.BOOLEAN: ["Yes", "No"],
        Kind.NUMBER: [
            str(key.minimum),
            str(key.maximum),
            hex(key.minimum),
            hex(key.maximum),
            str((key.minimum + key.maximum) // 2),
        ],
        Kind.RANGE: [f"{key.minimum}~{key.maximum}", f"{key.minimum}~{key.minimum}"],
        Kind.LIST: [*key.values, ",".join(key.values), ",".join([*key.values, "X-unknown"])],
        Kind.NAME: ["iqn.2001-04.com.example:disk"],
        Kind.TEXT: [*(key.values or ("", "some text é", "x" * 255))],
    }[key.kind]


def illegal(key: Key) -> list[str]:
    outside = [str(key.maximum + 1), hex(key.maximum + 1)] + ([str(key.minimum - 1)] if key.minimum else [])
    return ["x" * 256, "é" * 128] + {
        Kind.BOOLEAN: ["", "yes", "1", "Yes,No", "No "],
        Kind.NUMBER: ["", "-1", "x", "1~2", "1,2", "99999999999999999999999", *outside],
        Kind.RANGE: ["", "5", "2~1", f"{key.minimum}~{key.maximum + 1}"],
        Kind.LIST: ["", ",", "None,,CRC32C", "None,None"],
        Kind.NAME: [],
        Kind.TEXT: ["", "other"] if key.values else [],
    }[key.kind]


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_key_legal_values(key: Key) -> None:
    """Every legal value is parsed, and formats to something that parses to the same."""
    for value in legal(key):
        parsed = key.parse(value)
        assert key.parse(key.format(parsed)) == parsed


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_key_illegal_values(key: Key) -> None:
    """Format and range errors, each named after its key and without the value."""
    for value in illegal(key):
        with pytest.raises(TextError, match=key.name):
            key.parse(value)


@pytest.mark.parametrize(
    ("use", "names"),
    [
        (Use.FULL_FEATURE_PHASE_ONLY, {"SendTargets"}),
        (Use.ALL, {"TargetAlias", "InitiatorAlias", "TargetAddress", "MaxRecvDataSegmentLength"}),
        (Use.SECURITY, {"AuthMethod"}),
        (
            Use.INITIALIZE_ONLY,
            {
                "HeaderDigest",
                "DataDigest",
                "TargetName",
                "InitiatorName",
                "TargetPortalGroupTag",
                "IFMarker",
                "OFMarker",
                "IFMarkInt",
                "OFMarkInt",
            },
        ),
    ],
)
def test_key_use(use: Use, names: set[str]) -> None:
    """RFC 7143 13: all others are LO."""
    assert {key.name for key in KEYS if key.use is use} == names


def test_key_senders() -> None:
    """RFC 7143 13."""
    assert {key.name for key in KEYS if key.senders == Sender.TARGET} == {
        "TargetAlias",
        "TargetAddress",
        "TargetPortalGroupTag",
    }
    assert {key.name for key in KEYS if key.senders == Sender.INITIATOR} == {
        "SendTargets",
        "InitiatorName",
        "InitiatorAlias",
        "SessionType",
    }


def test_key_irrelevant_in_discovery() -> None:
    """RFC 7143 13: Irrelevant when SessionType=Discovery."""
    assert {key.name for key in KEYS if key.irrelevant_in_discovery} == {
        "MaxConnections",
        "InitialR2T",
        "ImmediateData",
        "MaxBurstLength",
        "FirstBurstLength",
        "MaxOutstandingR2T",
        "DataPDUInOrder",
        "DataSequenceInOrder",
        "TaskReporting",
        "iSCSIProtocolLevel",
    }
