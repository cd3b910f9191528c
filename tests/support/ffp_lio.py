"""Where LIO (Linux 6.1) does otherwise than the full feature phase suite asks: found by running it, see docs/iscsi-ffp.md.

Each of these tests must fail against LIO, so that a kernel that does otherwise is noticed.
"""

NO_SEQUENCES = "refuses text negotiation of several PDUs (Reject 05h), and takes the request's text for the next header"
ENDLESS = (
    "sends empty Data-In without end to an initiator that leaves MaxRecvDataSegmentLength at its default, as the plan does"
)
NO_HEADER = "the Reject does not repeat the first eight bytes of the CDB"
DROPS_SNACK = "drops the connection instead of a Reject"
CRASHES = "its kernel crashes when it frees the request"
RESERVED_LUN = "the LUN, reserved without a TTT (11.19), is all ones"

DIFFERENCES: dict[str, str] = {
    "test_5_1_command_retry": NO_HEADER,
    "test_9_3_2_empty_data_out": "does not count a Data-Out without data in DataSN; drops the connection after the next one",
    "test_11_1_immediate_task_management": "refuses immediate SCSI commands",
    "test_11_2_1_task_reassign_after_logout": "refuses Logout for recovery by the connection itself (response 3)",
    "test_11_2_2_task_reassign_of_an_allegiant_task": f"answers 0; {CRASHES}",
    "test_11_2_3_task_reassign_after_a_dropped_connection": f"answers 255; {CRASHES}",
    "test_11_3_1_abort_task_set": "has no ABORT TASK SET (response 5)",
    "test_11_3_2_abort_task_set_ahead_of_a_command": "has no ABORT TASK SET (response 5)",
    "test_11_3_3_abort_task_of_no_task": "answers 0 (function complete)",
    "test_12_1_snack_of_r2t": "the R2T comes with another TTT",
    "test_12_2_snack_of_data_in": "the Data-In comes with another StatSN",
    "test_12_4_snack_of_what_was_never_sent": DROPS_SNACK,
    "test_14_2_reject_of_a_data_ack": DROPS_SNACK,
    "test_14_3_reject_of_snack": DROPS_SNACK,
    "test_15_1_1_to_15_1_4_ping": RESERVED_LUN,
    "test_15_1_5_and_15_1_6_long_ping": "sends all of it back, more than MaxRecvDataSegmentLength",
    "test_16_3_1_immediate_data_up_to_first_burst_length[F 0]": (
        "with F 0 it waits for unsolicited data that InitialR2T=Yes forbids, then drops the connection"
    ),
    "test_17_1_1_text_response_to_send_targets": NO_SEQUENCES,
    "test_17_1_2_declaration": ENDLESS,
    "test_17_2_1_f_bit_of_send_targets": NO_SEQUENCES,
    "test_17_2_2_f_bit_of_a_declaration": ENDLESS,
    "test_17_3_2_send_targets_nothing_in_discovery": "drops the connection",
    "test_17_3_3_send_targets_all_in_a_normal_session": "tells all targets",
    "test_17_3_4_send_targets_nothing_in_a_normal_session": "drops the connection",
    "test_17_4_1_other_keys_in_discovery": "drops the connection",
    "test_17_5_text_with_another_task_tag": ENDLESS,
    "test_17_6_key_given_twice": NO_SEQUENCES,
    "test_17_7_1_negotiation_reset": ENDLESS,
    "test_17_7_2_negotiation_abandoned": NO_SEQUENCES,
    "test_17_7_3_illegal_declaration": ENDLESS,
    "test_17_8_1_text_over_two_pdus": NO_SEQUENCES,
    "test_17_8_2_c_and_f": NO_SEQUENCES,
    "test_17_8_3_declaration_over_two_pdus": NO_SEQUENCES,
    "test_18_2_1_data_digest_error_of_a_command[level 0]": "drops the connection without a Reject",
    "test_18_2_1_data_digest_error_of_a_command[level 1]": NO_HEADER,
    "test_18_2_1_data_digest_error_of_a_command[level 2]": NO_HEADER,
    "test_18_2_2_data_digest_error_of_data_out[level 0]": "drops the connection without a Reject",
    "test_18_2_2_data_digest_error_of_data_out[level 1]": "sends the recovery R2T without a Reject",
    "test_18_2_2_data_digest_error_of_data_out[level 2]": "sends the recovery R2T without a Reject",
}
"""By test function, or function[id] if only that one differs: what LIO does."""
HARMFUL = frozenset({"test_11_2_2_task_reassign_of_an_allegiant_task", "test_11_2_3_task_reassign_after_a_dropped_connection"})
"""Those that are not repeated, since they damage the guest's kernel."""
