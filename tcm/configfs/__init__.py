"""LIO's ConfigFS tree (``/sys/kernel/config/target``) over the running target."""
