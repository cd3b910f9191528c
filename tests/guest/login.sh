# Sourced by the guest jobs: open-iscsi sessions by hand-made node records, since a discovery through user-mode NAT
# reports the target's own loopback address.
#
#   node PORTAL IQN                        make the record
#   setting NAME VALUE                     change it
#   chap USER SECRET [USER_IN SECRET_IN]   log in with CHAP, mutual if the second pair is given
#   digests                                CRC32C for headers and data
#   login LUN / logout                     login prints the disk

node() {
    portal=$1 iqn=$2
    iscsiadm -m node -o new -T "$iqn" -p "$portal,1" >/dev/null
}
setting() { iscsiadm -m node -T "$iqn" -p "$portal" -o update -n "$1" -v "$2"; }
chap() {
    setting node.session.auth.authmethod CHAP
    setting node.session.auth.username "$1"
    setting node.session.auth.password "$2"
    [ $# -gt 2 ] || return 0
    setting node.session.auth.username_in "$3"
    setting node.session.auth.password_in "$4"
}
digests() {
    setting 'node.conn[0].iscsi.HeaderDigest' CRC32C
    setting 'node.conn[0].iscsi.DataDigest' CRC32C
}
login() {
    iscsiadm -m node -T "$iqn" -p "$portal" --login >/dev/null || return
    vm_until 300 vm_disk "$iqn-lun-$1" && vm_disk "$iqn-lun-$1"
}
logout() { iscsiadm -m node -T "$iqn" -p "$portal" --logout >/dev/null; }
