"""What runs in the guest: stories told with sg3_utils, fio and multipath, each with a logical unit of its own.

Nothing here imports tcm: it is the initiator's side, on the guest's Python.
"""
