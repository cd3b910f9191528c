"""``python -m tcm_fcoe.initiator``."""

from tcm_fcoe.initiator.cli import main

main()
