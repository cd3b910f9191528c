"""``python -m tcm_iscsi.initiator``."""

from tcm_iscsi.initiator.cli import main

main()
