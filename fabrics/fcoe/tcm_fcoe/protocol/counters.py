"""What a station counts: plain integers, each named after what was counted. Statistics read them; nobody sets them back."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True)
class Counters:
    """Of one station; names in :data:`tcm_fcoe.protocol.fcoe.COUNTERS` are those of its errors."""

    frames_in: int = 0
    """FCoE frames that arrived, whatever became of them."""
    fip_frames_in: int = 0
    other_ether_types: int = 0
    other_vlans: int = 0
    """Frames of a VLAN that is not the station's."""
    short_frames: int = 0
    """Less than an Ethernet header."""

    bad_length: int = 0
    bad_version: int = 0
    bad_sof: int = 0
    unsupported_class: int = 0
    bad_eof: int = 0
    aborted_frames: int = 0
    crc_errors: int = 0

    unsupported_headers: int = 0
    """Optional or extended headers that were never agreed."""
    unknown_type: int = 0
    """R_CTL and TYPE that nobody here deals with."""
    fcoe_not_for_us: int = 0
    """D_ID or destination MAC address of somebody else."""
    fcoe_spoofed: int = 0
    """A source MAC address that the S_ID does not have."""
    fcoe_no_route: int = 0
    """Frames that could not be sent or forwarded: nobody knows the way."""
    fcoe_unexpected: int = 0
    """Frames that the mode has no use for."""
    not_logged_in: int = 0
    """FCP frames of a port without PLOGI; a LOGO answers them."""
    no_image_pair: int = 0
    """FCP frames of a port without PRLI; a PRLO answers them."""
    unknown_exchange: int = 0
    """Replies and ABTS to exchanges that are not there."""
    unknown_sequence: int = 0
    """Frames that go on with a sequence that is not there."""
    recovery_qualifier: int = 0
    """Frames of an exchange that was aborted less than R_A_TOV ago."""

    congested: int = 0
    """Frames of link services that were not sent, and frames that were not looked at, since the outbox was full."""

    sequences_too_long: int = 0
    sequences_timed_out: int = 0
    sequences_refused: int = 0
    """The first frame of one too many sequences at once."""
    sequences_wrong: int = 0
    """Twice the same SEQ_CNT, or a relative offset that does not fit."""

    els_in: int = 0
    els_out: int = 0
    els_rejected: int = 0
    """LS_RJT that we sent."""
    els_refused: int = 0
    """LS_RJT that we got."""
    els_timed_out: int = 0
    els_retried: int = 0
    ct_out: int = 0
    ct_refused: int = 0
    abts_in: int = 0
    abts_out: int = 0
    abts_rejected: int = 0
    """BA_RJT that we sent."""
    plogi_in: int = 0
    plogi_refused: int = 0
    plogi_collisions: int = 0
    logins_put_off: int = 0
    """PLOGI and PRLI that were not looked at, since there were too many: LS_RJT, logical busy."""
    prli_in: int = 0
    logo_in: int = 0
    rscn_in: int = 0
    remote_ports_refused: int = 0
    """PLOGI beyond the limit of remote ports."""

    fip_malformed: int = 0
    fip_version: int = 0
    fip_unsupported: int = 0
    fip_unknown_descriptor: int = 0
    fip_unexpected_descriptor: int = 0
    fip_duplicate_descriptor: int = 0
    fip_missing_descriptor: int = 0
    fip_not_for_us: int = 0
    fip_spoofed: int = 0
    fip_conflict: int = 0
    fip_table_full: int = 0
    fip_rate_limited: int = 0
    fip_unexpected: int = 0
    fip_logins_refused: int = 0

    link_failures: int = 0
    virtual_link_failures: int = 0
    missed_keep_alives: int = 0
    missed_advertisements: int = 0
    symbol_errors: int = 0
    errored_blocks: int = 0
    frame_check_errors: int = 0

    def as_dict(self) -> dict[str, int]:
        """By name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}
