"""A port of OVS with DPDK."""
