"""``python -m tcm_fcoe.ping``."""

from tcm_fcoe.ping import main

main()
