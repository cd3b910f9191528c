"""What tcm counts, gathered when somebody asks: for the management tree, ``tcm-ctl``, Prometheus and SNMP."""
