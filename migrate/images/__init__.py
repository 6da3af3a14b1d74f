"""What is built once and cached: kernels, initramfs, disks."""
