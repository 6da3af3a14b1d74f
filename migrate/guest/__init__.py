"""The virtual machine: its XML, its life, its probe."""
