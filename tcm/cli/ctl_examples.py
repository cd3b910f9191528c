"""Examples of each command of ``tcm-ctl``, for its ``--help``: they run in this order, from ``tcm-run --empty`` on."""

from __future__ import annotations

EXAMPLES = {
    "create": """\
# a file of 1 GiB as a storage object; what is missing above it too
tcm-ctl create -p core/fileio_0/disk0 \\
    control=fd_dev_name=/srv/disk0.img,fd_dev_size=1073741824 enable=1
# a target with a LUN, a portal and an initiator
tcm-ctl create -p iscsi/IQN/tpgt_1/lun/lun_0
tcm-ctl create iscsi/IQN/tpgt_1/np/0.0.0.0:3260
tcm-ctl create -p iscsi/IQN/tpgt_1/acls/INITIATOR/lun_0
""",
    "link": """\
# LUN 0 is that storage object
tcm-ctl link iscsi/IQN/tpgt_1/lun/lun_0/disk0 core/fileio_0/disk0
# and the initiator finds it as its own LUN 0
tcm-ctl link iscsi/IQN/tpgt_1/acls/INITIATOR/lun_0/disk0 \\
    iscsi/IQN/tpgt_1/lun/lun_0
""",
    "set": """\
tcm-ctl set iscsi/IQN/tpgt_1/enable 1
tcm-ctl set core/fileio_0/disk0/attrib emulate_tpu=1 is_nonrot=1
# CHAP: the secret is asked for, or read from a pipe
tcm-ctl set iscsi/IQN/tpgt_1/acls/INITIATOR/auth userid=alice password=-
# refused if somebody else has changed something since revision 40
tcm-ctl set --revision 40 iscsi/IQN/tpgt_1/attrib login_timeout=20
""",
    "get": """\
tcm-ctl get core/fileio_0/disk0/attrib
tcm-ctl get core/fileio_0/disk0/attrib block_size emulate_tpu
tcm-ctl get --json iscsi/IQN/tpgt_1/param
""",
    "ls": """\
tcm-ctl ls
tcm-ctl ls core/fileio_0/disk0 --depth -1
tcm-ctl ls iscsi/IQN/tpgt_1/lun/lun_0 --depth -1 --statistics
""",
    "sessions": """\
tcm-ctl sessions
tcm-ctl sessions --json
""",
    "top": """\
tcm-ctl top
# for a program: a line for each look
tcm-ctl top --json --interval 0.5 --count 2
""",
    "statistics": """\
tcm-ctl statistics
""",
    "log": """\
tcm-ctl log
tcm-ctl log --since 10
""",
    "version": """\
tcm-ctl version
""",
    "save": """\
tcm-ctl save
tcm-ctl save before-maintenance.json
""",
    "diff": """\
tcm-ctl diff before-maintenance.json
tcm-ctl save running.json && tcm-ctl diff running.json
# 0: nothing to change, 1: something, 2: it cannot be told
tcm-ctl diff running.json > /dev/null || echo "it is $?"
""",
    "apply": """\
tcm-ctl apply before-maintenance.json --dry-run
tcm-ctl apply before-maintenance.json
""",
    "restore": """\
tcm-ctl restore --dry-run
tcm-ctl restore
tcm-ctl restore before-maintenance.json
""",
    "left-out": """\
tcm-ctl left-out
# a disk is back, or mounted
tcm-ctl left-out --retry
""",
    "reload": """\
tcm-ctl reload
""",
    "mount": """\
mkdir tree && tcm-ctl mount tree
""",
    "targetcli": """\
tcm-ctl targetcli
tcm-ctl targetcli ls
tcm-ctl targetcli /backstores/ramdisk create name=ram0 size=16M
""",
    "exec": """\
tcm-ctl exec ls /sys/kernel/config/target/core
tcm-ctl exec /usr/bin/python3 -c \\
    'import rtslib_fb; print(list(rtslib_fb.RTSRoot().targets))'
""",
    "delete": """\
# once commands there have ended, which get 10 seconds
tcm-ctl delete -r --drain --timeout 10 iscsi/IQN/tpgt_1/acls/INITIATOR
tcm-ctl delete -r iscsi/IQN
tcm-ctl delete core/fileio_0/disk0
""",
    "clear": """\
tcm-ctl clear --confirm
""",
}
"""By command: what a shell can run. ``IQN`` and ``INITIATOR`` stand for names."""


def epilog(name: str) -> str | None:
    """What click prints below a command's options; its lines stay as they are."""
    text = EXAMPLES.get(name)
    return None if text is None else "\b\nExamples:\n" + "".join(f"  {line}\n" for line in text.splitlines())
