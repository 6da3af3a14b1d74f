"""A vDPA device by vhost-vdpa."""
