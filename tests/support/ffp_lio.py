"""Where LIO (Linux 6.1) does otherwise than the full feature phase suite asks: found by running it, see docs/iscsi-ffp.md.

Each of these tests must fail against LIO, so that a kernel that does otherwise is noticed.
"""

DIFFERENCES: dict[str, str] = {}
"""By test function, or function[id] if only that one differs: what LIO does."""
HARMFUL: frozenset[str] = frozenset()
"""Those that are not repeated, since they damage the guest's kernel."""
