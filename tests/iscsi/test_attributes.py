"""LIO's attributes and parameters: names, defaults and ranges of lio-configfs 4.3.3, 4.3.5, 4.3.6."""

from __future__ import annotations

from typing import Any

import pytest
from tcm_iscsi.attributes import AclAttributes, TpgAttributes, TpgParameters
from tcm_iscsi.protocol.keys import BY_NAME, Stage
from tcm_iscsi.protocol.negotiation import Negotiator
from tcm_iscsi.protocol.parameters import SessionParameters

from tcm.failure import ConfigError
from tcm.options import build
from tcm.saveconfig_names import NODE_ACL, PARAMETERS, TARGET_PORTAL_GROUP

OF_OTHERS = {"demo_mode_login_only", "jam_host"}
"""Attributes of LIO's other fabrics."""
LIO_TPG = {name: value for name, value in TARGET_PORTAL_GROUP.items() if name not in OF_OTHERS}


def test_lio_defaults() -> None:
    """What LIO's own configuration says is taken, and is the default of the attributes."""
    assert build(TpgAttributes, LIO_TPG, "") == TpgAttributes()
    assert build(AclAttributes, NODE_ACL, "") == AclAttributes(default_erl=0)  # ours: as the portal group says
    parameters = build(TpgParameters, PARAMETERS, "")
    assert parameters.TargetAlias == "LIO Target"
    assert parameters.InitialR2T is True
    assert Negotiator(parameters.offers()).ours["MaxRecvDataSegmentLength"] == 8192


@pytest.mark.parametrize(
    ("cls", "values"),
    [
        (TpgAttributes, {"login_timeout": 4}),
        (TpgAttributes, {"login_timeout": 31}),
        (TpgAttributes, {"default_cmdsn_depth": 0}),
        (TpgAttributes, {"default_cmdsn_depth": 513}),
        (TpgAttributes, {"default_erl": 3}),
        (TpgAttributes, {"fabric_prot_type": 2}),
        (TpgAttributes, {"fabric_prot_type": 4}),
        (TpgAttributes, {"authentication": "perhaps"}),
        (AclAttributes, {"dataout_timeout": 1}),
        (AclAttributes, {"dataout_timeout": 61}),
        (AclAttributes, {"dataout_timeout_retries": 0}),
        (AclAttributes, {"dataout_timeout_retries": 16}),
        (AclAttributes, {"nopin_timeout": 2}),
        (AclAttributes, {"nopin_timeout": 61}),
        (AclAttributes, {"nopin_response_timeout": 2}),
        (AclAttributes, {"nopin_response_timeout": 61}),
        (AclAttributes, {"authentication": 2}),
        (AclAttributes, {"authentication": -2}),
        (AclAttributes, {"default_erl": 3}),
        (AclAttributes, {"cmdsn_depth": 513}),
        (AclAttributes, {"allowed_addresses": ["10.0.0.0/8", "10.0.0.1/8"]}),
        (TpgAttributes, {"allowed_addresses": ["10.0.0.0/33"]}),
        (TpgAttributes, {"allowed_addresses": ["here"]}),
        (TpgAttributes, {"allowed_initiators": ["disk"]}),
        (TpgAttributes, {"redirect_temporarily": [""]}),
        (TpgAttributes, {"redirect_temporarily": ["192.0.2.1:3260,1"]}),
        (TpgAttributes, {"redirect_temporarily": ["192.0.2.1:0"]}),
        (TpgAttributes, {"redirect_temporarily": ["192.0.2.1:65536"]}),
        (TpgAttributes, {"redirect_permanently": ["2001:db8::1:3260"]}),
        (TpgAttributes, {"redirect_permanently": ["[192.0.2.1x]:3260"]}),
        (TpgAttributes, {"redirect_permanently": ["a_b:3260"]}),
        (TpgAttributes, {"redirect_permanently": ["192.0.2.1 initiator=x"]}),
        (TpgAttributes, {"redirect_permanently": ["192.0.2.1 portal=host"]}),
        (TpgAttributes, {"redirect_permanently": ["192.0.2.1 address=300.0.0.0/8"]}),
        (TpgAttributes, {"redirect_permanently": ["192.0.2.1 portal=192.0.2.2 portal=192.0.2.3"]}),
        (TpgAttributes, {"redirect_permanently": ["192.0.2.1 when=always"]}),
        (TpgParameters, {"AuthMethod": "KRB5"}),
        (TpgParameters, {"HeaderDigest": "MD5"}),
        (TpgParameters, {"HeaderDigest": ""}),
        (TpgParameters, {"AuthMethod": "Password"}),
        (TpgParameters, {"MaxConnections": 0}),
        (TpgParameters, {"MaxRecvDataSegmentLength": 511}),
        (TpgParameters, {"MaxRecvDataSegmentLength": 1 << 24}),
        (TpgParameters, {"MaxXmitDataSegmentLength": 511}),
        (TpgParameters, {"MaxBurstLength": 1 << 24}),
        (TpgParameters, {"DefaultTime2Wait": 3601}),
        (TpgParameters, {"MaxOutstandingR2T": 0}),
        (TpgParameters, {"ErrorRecoveryLevel": 3}),
        (TpgParameters, {"InitialR2T": "Maybe"}),
        (TpgParameters, {"IFMarker": "Yes"}),
        (TpgParameters, {"OFMarkInt": "2048~8192"}),
        (TpgParameters, {"TargetAlias": "x" * 256}),
        (TpgParameters, {"TargetAlias": "a\nb"}),
    ],
)
def test_values_out_of_range(cls: type[Any], values: dict[str, Any]) -> None:
    """One line that names the attribute and says what to write."""
    with pytest.raises(ConfigError) as caught:
        build(cls, values, "attributes.")
    assert "\n" not in str(caught.value)
    assert next(iter(values)) in str(caught.value)


@pytest.mark.parametrize("parameters", [TpgParameters(), build(TpgParameters, PARAMETERS, "")])
def test_offers_are_legal(parameters: TpgParameters) -> None:
    """Every offer is a key of the operational stage, and the negotiator takes it."""
    offers = parameters.offers()
    assert all(Stage.OPERATIONAL in BY_NAME[name].stages for name in offers)
    Negotiator(offers)


def test_offers_are_what_is_configured() -> None:
    """Several connections, recovery and data out of order are negotiated as configured."""
    wide = TpgParameters(MaxConnections=8, ErrorRecoveryLevel=2, DataPDUInOrder=False, DataSequenceInOrder=False)
    negotiator = Negotiator(wide.offers())
    offered = [("MaxConnections", "4"), ("ErrorRecoveryLevel", "2"), ("DataPDUInOrder", "No"), ("DataSequenceInOrder", "No")]
    assert negotiator.receive(offered, Stage.OPERATIONAL) == offered
    assert negotiator.session_parameters() == SessionParameters(
        max_connections=4, error_recovery_level=2, data_pdu_in_order=False, data_sequence_in_order=False
    )
    assert Negotiator(TpgParameters().offers()).receive(offered, Stage.OPERATIONAL) == [
        ("MaxConnections", "1"),
        ("ErrorRecoveryLevel", "0"),
        ("DataPDUInOrder", "Yes"),
        ("DataSequenceInOrder", "Yes"),
    ]
