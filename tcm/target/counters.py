"""What an I_T_L nexus counts, since it was established, and its logical unit sums up."""

from __future__ import annotations

COUNTERS = (
    "read_cmds",
    "write_cmds",
    "other_cmds",
    "read_bytes",
    "write_bytes",
    "parameter_bytes_in",
    "parameter_bytes_out",
)
"""Attributes of :class:`tcm.target.nexus.ITLNexus`: commands completed, by what they move; bytes of Data-In and Data-Out, and
how many of them were not logical blocks."""
