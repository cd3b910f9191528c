"""What the initiators of the fabrics have in common: results, ready-made commands, and (``cli``) a command line.

An initiator brings the transport: a subclass of :class:`~tcm.initiator.commands.Commands` whose ``execute`` sends a CDB and
gives a :class:`~tcm.initiator.results.Result`.
"""
