"""A virtual function by VFIO."""
