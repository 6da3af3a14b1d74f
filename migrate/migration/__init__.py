"""Act: move, save and restore, hotplug, faults."""
