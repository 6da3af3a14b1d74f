"""virtio as standby of a virtual function."""
